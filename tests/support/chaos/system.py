"""The system under chaos: servers, a gateway and workers, each in a run directory of its own, joined by proxies.

::

    gateway ──▶ proxy gateway-rabbitmq ──▶ ┌──────────┐ ◀── proxy worker1-rabbitmq ◀── worker1
            └─▶ proxy gateway-redis ─────▶ │ rabbitmq │ ◀── proxy worker1-redis ◀────┘
                                           │ redis    │ ◀── …                          worker2 …
                                           └──────────┘
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import amqp
import httpx
import redis

from support import stack as stacks
from support.chaos.checkout import checkout
from support.chaos.orders import LATEST
from support.proxy import Proxy
from support.stack import ROOT, Stack
from support.waiting import eventually

#: The rungs' names and seconds, and what else makes a run short; the rest is as in production.
LADDER = (("1m", 1.0), ("5m", 2.0), ("30m", 3.0))
LEASE, LEASE_PARK, GRACE, SOFT_SHUTDOWN, HOLD_TTL, CANCEL_GRACE = 3, 1, 8, 3, 4, 2

#: A lane of its own, for some of the types.
LANE = "side"

#: The secrets are the run's own: nothing outside of it takes them.
_SECRET = "chaos-chaos-chaos-chaos-chaos-chaos"

SETTINGS: dict[str, object] = {
    "ladder": ",".join(f"{name}={seconds:g}" for name, seconds in LADDER),
    "lease": LEASE,
    "lease_park": LEASE_PARK,
    "unpublished_grace": GRACE,
    "sweep_interval": 1,
    "soft_shutdown": SOFT_SHUTDOWN,
    "queue_depth_limit": 400,
    "lanes": f"{LANE}=chaos.narrow,chaos.paced,echo",
    "concurrency_min": 2,
    "concurrency_max": 4,
    "hold_ttl": HOLD_TTL,
    "cancel_grace": CANCEL_GRACE,
    "callback_secrets": _SECRET,
    "webhook_secrets": f"whsec_{base64.b64encode(_SECRET.encode()).decode()}",
}

#: Seconds after which RabbitMQ tries dead letters again that were refused (`advanced.config`).
DEAD_LETTER_RETRY = 30.0

#: Seconds until a worker notices that its broker is silent: two heartbeats of 20 s, and a look.
SILENCE = 45.0

#: Seconds the supervisor waits at most before it starts a process again, and a process takes until it is ready.
RESTART = 20.0

#: Seconds for which a worker that has died keeps its turn to carry jobs out, and after which a keeper looks after a lost wake-up.
JOBS_TURN = 30.0

VHOST = "robot"


def drain_limit(backlog: int) -> float:
    """Seconds in which everything must have ended once nothing is broken any more.

    Args:
        backlog: tasks that had not ended then; the system does five a second at the very least.
    """
    climb = sum(seconds for _, seconds in LADDER) + LEASE + LEASE_PARK + GRACE + LATEST + HOLD_TTL
    return climb + DEAD_LETTER_RETRY + SILENCE + RESTART + JOBS_TURN + backlog / 5


@dataclasses.dataclass(frozen=True)
class Machine:
    """Everything that runs, and ways to reach it that no fault touches."""

    servers: Stack
    gateway: Stack
    workers: dict[str, Stack]
    proxies: dict[str, Proxy]
    ledger_url: str
    ledger_file: Path
    environ: dict[str, str]  #: the servers' own addresses, without a proxy

    @property
    def http_url(self) -> str:
        """The gateway."""
        return self.gateway.env["DISPATCH_HTTP_URL"]

    @property
    def management_url(self) -> str:
        """RabbitMQ's management API, with user and password."""
        return self.environ["DISPATCH_MANAGEMENT_URL"]

    def pid(self, target: str) -> int:
        """The pid of ``gateway``, ``worker1``, ``rabbitmq`` or ``redis`` now.

        Raises:
            KeyError: it does not run.
        """
        if target in self.workers:
            return self.workers[target].pid("WORKER")
        stack = self.gateway if target == "gateway" else self.servers
        return stack.pid(target.upper())

    def children(self, target: str) -> list[int]:
        """The pids of a process's children."""
        pid = self.pid(target)
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stacks(self) -> dict[str, Stack]:
        """Every run directory, by what runs there."""
        return {"servers": self.servers, "gateway": self.gateway, **self.workers}

    def restarts(self) -> dict[str, int]:
        """How often the supervisors started something again."""
        found = {}
        for name, stack in self.stacks().items():
            for line in stack.status().splitlines()[1:]:
                words = line.split()
                if len(words) >= 5 and words[1] == "ready":
                    found[words[0] if name == "servers" else name] = int(words[4])
        return found

    def ready(self) -> bool:
        """Whether the gateway answers that it is."""
        try:
            return httpx.get(f"{self.http_url}/readyz", timeout=5).status_code == 200
        except (httpx.HTTPError, KeyError):
            return False

    def redis(self) -> redis.Redis:
        """A client past the proxies."""
        return redis.Redis.from_url(self.environ["DISPATCH_REDIS_URL"], decode_responses=True, socket_timeout=20)

    @contextlib.contextmanager
    def channel(self) -> Iterator[amqp.Channel]:
        """A confirming channel past the proxies."""
        url = httpx.URL(self.environ["DISPATCH_BROKER_URL"])
        with amqp.Connection(
            f"{url.host}:{url.port}", userid=url.username, password=url.password, virtual_host=VHOST,
            confirm_publish=True, connect_timeout=5, read_timeout=10, write_timeout=10,
        ) as connection:  # fmt: skip
            yield connection.channel()

    def management(self) -> httpx.Client:
        """A client of the management API."""
        return httpx.Client(base_url=self.management_url, timeout=10, trust_env=False)

    def keep_logs(self, directory: Path) -> None:
        """Copy every log, before the run directories go."""
        for name, stack in self.stacks().items():
            shutil.copytree(stack.run_dir / "log", directory / name, dirs_exist_ok=True)


@contextlib.contextmanager
def running(workers: int, directory: Path, **settings: object) -> Iterator[Machine]:
    """A machine that is thrown away in the end.

    Args:
        workers: how many worker processes, each with its own proxies.
        directory: for the ledger's file.
        settings: more than `SETTINGS`.
    """
    names = ["gateway", *(f"worker{number}" for number in range(1, workers + 1))]
    chosen = {**SETTINGS, **settings}
    with contextlib.ExitStack() as stack, _ledger(directory / "ledger.sqlite") as ledger_url:
        root = stack.enter_context(checkout())
        servers = stack.enter_context(stacks.running("servers", root, **chosen))
        proxies: dict[str, Proxy] = {}
        apps: dict[str, Stack] = {}

        def start(name: str, **more: object) -> None:
            for server, variable in (("rabbitmq", "BROKER"), ("redis", "REDIS")):
                proxies[f"{name}-{server}"] = stack.enter_context(Proxy.to(servers.env[f"DISPATCH_{variable}_URL"]))
            apps[name] = stacks.make(
                root,
                **chosen,
                **more,
                broker_url=proxies[f"{name}-rabbitmq"].url,
                redis_url=proxies[f"{name}-redis"].url,
                management_url=servers.env["DISPATCH_MANAGEMENT_URL"],
                robot_api_url=ledger_url,
                http_allowed_hosts=ledger_url.removeprefix("http://"),
            )
            stack.callback(apps[name].destroy)
            apps[name].command("up", "--only", name.rstrip("0123456789"))

        start("gateway")
        public = apps["gateway"].env["DISPATCH_HTTP_URL"]  # its port stays, whatever is killed
        for name in names[1:]:
            start(name, public_url=public)
        machine = Machine(
            servers, apps.pop("gateway"), apps, proxies, ledger_url, directory / "ledger.sqlite", dict(servers.env)
        )
        eventually(machine.ready, 30, machine.gateway.status)
        yield machine


@contextlib.contextmanager
def _ledger(path: Path) -> Iterator[str]:
    """The ledger's process; it ends with its standard input, so also when the harness is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.chaos.ledger", "--file", str(path)],
        cwd=ROOT / "tests",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
