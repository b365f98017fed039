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
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import redis
from support.waiting import eventually

from launcher import procfs, rabbitmq
from launcher import redis as private_redis
from launcher.ports import Ports
from launcher.processes import Spec
from launcher.rundir import RunDir

#: Tells the workers of one test run where its servers are.
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
    directory = Path(tempfile.mkdtemp(prefix="robot-dispatch-tests-"))
    directory.chmod(0o711)  # the servers' own users pass through it
    os.environ[DIRECTORY] = str(directory)


def obtain() -> Servers:
    """The servers of this test run; the first to ask starts them."""
    directory = Path(os.environ[DIRECTORY])
    found = directory / "servers.json"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            found.write_text(json.dumps(dataclasses.asdict(_start(RunDir.at(directory / "run")))))
    return Servers(**json.loads(found.read_text()))


def discard() -> None:
    """In the process that leads the test run: stop whatever was started, delete its data."""
    directory = Path(os.environ.pop(DIRECTORY))
    procfs.send(procfs.owned(directory / "run"), signal.SIGKILL)
    eventually(lambda: not procfs.owned(directory / "run"), 10, "the servers did not go away")
    shutil.rmtree(directory, ignore_errors=True)


def _start(run: RunDir) -> Servers:
    ports = Ports(run.ports)
    environ = {**os.environ, procfs.MARKER: str(run.path)}
    specs = [
        *rabbitmq.specs(run, environ, ports, consumer_timeout=21_600),
        private_redis.spec(run, environ, ports),
    ]
    for spec in specs:
        _spawn(run, spec)
    for spec in specs:
        eventually(lambda spec=spec: spec.ready("") is None, 60, lambda spec=spec: f"{spec.name}: {spec.ready('')}")
    known = json.loads(run.ports.read_text())
    amqp_url = rabbitmq.broker_url(known["rabbitmq"]).rpartition("/")[0]
    return Servers(
        amqp_url,
        rabbitmq.management_url(known["management"]),
        private_redis.redis_url(known["redis"]),
        time.time(),
    )


def _spawn(run: RunDir, spec: Spec) -> None:
    account = spec.account
    with run.log(spec.name).open("ab") as log:
        subprocess.Popen(
            spec.command,
            env=dict(spec.environ),
            cwd=spec.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=account and account.uid,
            group=account and account.gid,
            extra_groups=None if account is None else [],
        ).returncode = 0  # it outlives this process on purpose


def vhost(servers: Servers) -> Iterator[str]:
    """Create a vhost, yield its name, delete it."""
    name = unique()
    servers.create_vhost(name)
    yield name
    servers.delete_vhost(name)
