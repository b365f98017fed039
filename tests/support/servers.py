"""One real RabbitMQ and one real Redis for a whole test run, shared by all its pytest-xdist workers.

They are private ones, started on first use in a directory of their own and thrown away at the end,
unless ``DISPATCH_TEST_BROKER_URL``, ``DISPATCH_TEST_MANAGEMENT_URL`` and ``DISPATCH_TEST_REDIS_URL``
name others. A missing server is a failure, never a skip.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import redis

from launcher import envfile, layout, procfs
from launcher.control import Stack
from launcher.rundir import RunDir
from support.waiting import eventually

#: Names the directory of one test run's servers to its processes.
DIRECTORY = "ROBOT_TEST_SERVERS"

#: Seconds. Deleting at-least-once queues within a second of a node's start breaks RabbitMQ 3.10.8.
_SETTLED = 3.0


@dataclasses.dataclass(frozen=True)
class Servers:
    """Where the servers of this test run are."""

    amqp_url: str  #: without a vhost: ``amqp://user:password@host:port``
    management_url: str  #: with user and password
    redis_url: str
    ready_at: float = 0.0  #: epoch seconds at which RabbitMQ was ready

    def broker_url(self, vhost: str) -> str:
        return f"{self.amqp_url}/{quote(vhost, safe='')}"

    def management(self) -> httpx.Client:
        return httpx.Client(base_url=self.management_url, timeout=10, trust_env=False)

    def create_vhost(self, name: str) -> None:
        user = urlsplit(self.amqp_url).username or "guest"
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        path = quote(name, safe="")
        with self.management() as api:
            api.put(f"/api/vhosts/{path}").raise_for_status()
            api.put(f"/api/permissions/{path}/{user}", json=everything).raise_for_status()

    def delete_vhost(self, name: str) -> None:
        if time.time() - self.ready_at < _SETTLED:
            return  # the server is thrown away at the end
        with self.management() as api:
            api.delete(f"/api/vhosts/{quote(name, safe='')}").raise_for_status()

    def delete_keys(self, prefix: str) -> None:
        client = redis.Redis.from_url(self.redis_url)
        with contextlib.closing(client):
            for key in client.scan_iter(match=f"{prefix}*", count=1_000):
                client.unlink(key)


def unique(prefix: str = "test") -> str:
    """A name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def external(environ: Mapping[str, str]) -> Servers | None:
    """The servers that the environment names; None when it names none."""
    names = ("DISPATCH_TEST_BROKER_URL", "DISPATCH_TEST_MANAGEMENT_URL", "DISPATCH_TEST_REDIS_URL")
    given = [environ.get(name) for name in names]
    if not any(given):
        return None
    if not all(given):
        raise RuntimeError(f"give all of {', '.join(names)}, or none")
    broker, management, cache = (str(url).rstrip("/") for url in given)
    parts = urlsplit(broker)
    return Servers(f"{parts.scheme}://{parts.netloc}", management, cache)


def prepare() -> None:
    """In the process that leads the test run: choose the directory, before any worker starts."""
    _delete_stale()
    directory = Path(tempfile.mkdtemp(prefix="robot-dispatch-tests-"))
    directory.chmod(0o711)  # the servers' own users pass through it
    (directory / "owner").write_text(str(os.getpid()))
    os.environ[DIRECTORY] = str(directory)


def _delete_stale() -> None:
    """What test runs left behind that were killed; their servers have ended themselves."""
    for directory in Path(tempfile.gettempdir()).glob("robot-dispatch-tests-*"):
        with contextlib.suppress(OSError, ValueError):
            owner = int((directory / "owner").read_text())
            if procfs.started_at(owner) is None and not procfs.owned(directory / "run"):
                shutil.rmtree(directory, ignore_errors=True)


def obtain() -> Servers:
    """The servers of this test run; the first to ask starts them."""
    directory = Path(os.environ[DIRECTORY])
    found = directory / "servers.json"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            # They end with the process that leads the run, also when that is killed.
            started = start(directory / "run", owner=int((directory / "owner").read_text()))
            found.write_text(json.dumps(dataclasses.asdict(started)))
    return Servers(**json.loads(found.read_text()))


def start(directory: Path, owner: int) -> Servers:
    """Start private servers that end with their owner.

    Args:
        directory: their run directory.
        owner: a process id.
    """
    run = RunDir.at(directory)
    Stack(run, report=lambda _: None).up(layout.SERVERS, os.environ, owner)
    values = envfile.read(run.env)
    amqp_url = values["DISPATCH_BROKER_URL"].rpartition("/")[0]
    return Servers(amqp_url, values["DISPATCH_MANAGEMENT_URL"], values["DISPATCH_REDIS_URL"], time.time())


def discard() -> None:
    """In the process that leads the test run: end whatever was started, delete its data."""
    directory = Path(os.environ.pop(DIRECTORY))
    throw_away(directory / "run")
    shutil.rmtree(directory, ignore_errors=True)


def throw_away(run: Path) -> None:
    """Kill a stack, the supervisor first so that it starts nothing again; faster than stopping it."""
    supervisor = envfile.read(run / "env").get("SUPERVISOR_PID")
    if supervisor and procfs.belongs(int(supervisor), run):
        procfs.send([int(supervisor)], signal.SIGKILL)

    def gone() -> bool:
        procfs.send(left := procfs.owned(run), signal.SIGKILL)  # again: a process may have been forked meanwhile
        return not left

    eventually(gone, 10, "the servers did not go away")


def vhost(servers: Servers) -> Iterator[str]:
    """Create a vhost, yield its name, delete it."""
    name = unique()
    servers.create_vhost(name)
    yield name
    servers.delete_vhost(name)
