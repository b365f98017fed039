"""A RabbitMQ and a Redis for one benchmark, started and stopped by the launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import amqp
import httpx
import redis

from bench.harness import procfs
from tools import private_stack

ROOT = Path(__file__).resolve().parents[2]  #: the checkout of this harness

#: Not inherited by programs under measurement.
_FOREIGN = ("DISPATCH_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "OTEL_", "CELERY_")

#: Limits that a benchmark would run into: it measures what is accepted.
_LIMITS = {
    "queue_depth_limit": 10**7,
    "quota_open_tasks": 10**7,
    "quota_stored_bytes": 10**12,
    "quota_dead_letters": 10**7,
    "rate_limit": 10**6,
    "queue_ttl": 36_000,
}


@dataclasses.dataclass(frozen=True)
class BenchServers:
    """The servers, and where they answer."""

    stack: private_stack.PrivateStack
    logs: Path  #: for the programs of the benchmark

    @functools.cached_property
    def addresses(self) -> Mapping[str, str]:
        """The launcher's ``env`` file."""
        return self.stack.addresses

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a program of ours: settings of the servers and limits out of reach.

        It carries the stack's marker, so that ending the stack ends a program that a killed benchmark left behind.
        """
        base = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        own = {name: value for name, value in self.addresses.items() if name.startswith("DISPATCH_")}
        limits = {f"DISPATCH_{name.upper()}": str(value) for name, value in _LIMITS.items()}
        return base | own | limits | {private_stack.MARKER: str(self.stack.directory), "PYTHONUNBUFFERED": "1"}

    @property
    def pids(self) -> dict[str, tuple[int, ...]]:
        """RabbitMQ and Redis, for a `CpuMeter`."""
        return {"RabbitMQ": (int(self.addresses["RABBITMQ_PID"]),), "Redis": (int(self.addresses["REDIS_PID"]),)}

    def redis_url(self, database: int) -> str:
        """The URL of one of Redis's databases."""
        return urlunsplit(urlsplit(self.addresses["DISPATCH_REDIS_URL"])._replace(path=f"/{database}"))

    def redis(self, database: int) -> redis.Redis:
        """A client of one of Redis's databases."""
        return redis.Redis.from_url(self.redis_url(database))

    def vhost(self, name: str) -> str:
        """The broker's URL with a vhost of this name, created if missing."""
        parts = urlsplit(self.addresses["DISPATCH_BROKER_URL"])
        with self.management() as api:
            api.put(f"/api/vhosts/{name}").raise_for_status()
            permissions = {"configure": ".*", "write": ".*", "read": ".*"}
            api.put(f"/api/permissions/{name}/{parts.username}", json=permissions).raise_for_status()
        return urlunsplit(parts._replace(path=f"/{name}"))

    def management(self) -> httpx.Client:
        """A client of the management API."""
        return httpx.Client(base_url=self.addresses["DISPATCH_MANAGEMENT_URL"], timeout=30, trust_env=False)

    @contextlib.contextmanager
    def channel(self, url: str) -> Iterator[Any]:
        """A channel on a connection of its own.

        Args:
            url: the broker's, with a vhost.
        """
        parts = urlsplit(url)
        address = {"host": f"{parts.hostname}:{parts.port}", "userid": parts.username, "password": parts.password}
        with amqp.Connection(virtual_host=parts.path[1:] or "/", **address) as connection:
            yield connection.channel()

    def depth(self, url: str, queue: str) -> int:
        """Messages that wait in a queue."""
        with self.channel(url) as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def purge(self, url: str, queue: str) -> None:
        """Empty a queue."""
        with self.channel(url) as channel:
            channel.queue_purge(queue)

    def memory(self) -> dict[str, float]:
        """Bytes of memory: of Redis, what it allocated; of RabbitMQ, what it counts, and its PSS."""
        with self.management() as api:
            node = api.get("/api/nodes").raise_for_status().json()[0]
        with contextlib.closing(self.redis(0)) as client:
            used = client.info("memory")["used_memory"]
        return {
            "Redis": float(used),
            "RabbitMQ": float(node["mem_used"]),
            "RabbitMQ PSS": procfs.pss(self.pids["RabbitMQ"][0]),
        }


@contextlib.contextmanager
def started(**settings: object) -> Iterator[BenchServers]:
    """Servers that are stopped in the end, with all programs that were started beside them.

    Args:
        settings: e.g. ``lease=2`` for ``DISPATCH_LEASE=2``, of the servers and of each program of ours.
    """
    with (
        tempfile.TemporaryDirectory(prefix="robot-dispatch-bench-") as logs,
        private_stack.running(ROOT, None, "servers", **(_LIMITS | settings)) as stack,
    ):
        yield BenchServers(stack, Path(logs))
