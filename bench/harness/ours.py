"""The product under measurement, of any checkout: its gateway and its worker, through their command lines and HTTP only."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import load, programs
from bench.harness.programs import MeasuredProgram
from bench.harness.servers import BenchServers

WORK_QUEUE = "robot.task.q"

#: Submissions under way at a time while a queue is filled.
_FILLING = 32

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A checkout with a vhost and a Redis database of its own."""

    name: str
    path: Path
    servers: BenchServers
    database: int  #: of Redis
    broker_url: str

    @classmethod
    def prepared(cls, name: str, path: Path, servers: BenchServers, database: int = 0) -> Checkout:
        """Make its vhost, with its broker map.

        Args:
            name: of the variant and, in small letters, of the vhost.
            path: of the checkout.
            servers: the benchmark's.
            database: of Redis.

        Raises:
            BenchmarkFailed: its topology could not be applied.
        """
        url = servers.vhost(f"bench-{name}".replace(" ", "-"))
        checkout = cls(name, path.resolve(), servers, database, url)
        checkout.command("topology", "apply")
        return checkout

    @property
    def environ(self) -> dict[str, str]:
        """Of its programs."""
        own = {"DISPATCH_BROKER_URL": self.broker_url, "DISPATCH_REDIS_URL": self.servers.redis_url(self.database)}
        shared = {name: value for name, value in self.servers.environ.items() if self._has(name)}
        return shared | own | {"PYTHONPATH": str(self.path), "REMAP_SIGTERM": "SIGQUIT"}

    def _has(self, name: str) -> bool:
        """Whether it has a variable's setting: an older checkout refuses those that came later."""
        return not name.startswith("DISPATCH_") or f"`{name}`" in self._settings

    @functools.cached_property
    def _settings(self) -> str:
        return (self.path / "docs/reference/settings.md").read_text()

    @property
    def python(self) -> str:
        """Its interpreter; this one where it has none of its own."""
        own = self.path / ".venv" / "bin" / "python"
        return str(own if own.exists() else sys.executable)

    def command(self, *words: str, within: float = 300) -> str:
        """Run one of its commands, ``celery -A celery_app …``; its output.

        Args:
            words: of the command line.
            within: seconds.

        Raises:
            BenchmarkFailed: it failed, or took longer.
        """
        command = [self.python, "-m", "celery", "-A", "celery_app", *words]
        return programs.completed(command, self.environ, self.path, within)

    def unfinished(self) -> int:
        """Tasks that have neither succeeded nor failed yet."""
        with contextlib.closing(self.servers.redis(self.database)) as client:
            return int(client.zcard("robot:due"))

    def waiting(self) -> int:
        """Messages in the work queue."""
        return self.servers.depth(self.broker_url, WORK_QUEUE)

    def forget(self) -> None:
        """Empty the work queue and Redis."""
        self.servers.purge(self.broker_url, WORK_QUEUE)
        with contextlib.closing(self.servers.redis(self.database)) as client:
            client.flushdb()

    @contextlib.contextmanager
    def gateway(self, workers: int = 2, **settings: object) -> Iterator[RunningGateway]:
        """Its gateway, ready.

        Args:
            workers: processes.
            settings: e.g. ``http_waits=10``.
        """
        port = programs.free_port()
        own = {"http_port": port, "http_workers": workers, **settings}
        environ = self.environ | {f"DISPATCH_{name.upper()}": str(value) for name, value in own.items()}
        options = ("-c", "python:dispatch.gateway.gunicorn_conf", "--graceful-timeout", "5", "--no-control-socket")
        command = (self.python, "-m", "gunicorn", *options, "app:create_app()")
        label = f"gateway-{self.name}-{workers}"
        with programs.running(label, command, environ, self.path, self.servers.logs) as program:
            program.require(lambda: programs.answers(port), "a gateway that is ready")
            yield RunningGateway(program, port)

    @contextlib.contextmanager
    def worker(self, autoscale: str = "2,2", **settings: object) -> Iterator[MeasuredProgram]:
        """Its worker with child processes, which may not be ready yet.

        Args:
            autoscale: most and least children.
            settings: e.g. ``prefetch_multiplier=20``.
        """
        most, least = autoscale.split(",")
        own = {"concurrency_max": most, "concurrency_min": least, **settings}
        with self._worker("prefork", [f"--autoscale={autoscale}"], own) as program:
            yield program

    @contextlib.contextmanager
    def threads(self, threads: int) -> Iterator[MeasuredProgram]:
        """Its worker with a pool of threads, which refuses to start in a checkout without one.

        Args:
            threads: how many.
        """
        with self._worker("threads", ["--pool=threads", f"--concurrency={threads}"], {}) as program:
            yield program

    @contextlib.contextmanager
    def _worker(self, pool: str, options: Sequence[str], settings: Mapping[str, object]) -> Iterator[MeasuredProgram]:
        own = {"worker_metrics_port": programs.free_port(), **settings}
        environ = self.environ | {f"DISPATCH_{name.upper()}": str(value) for name, value in own.items()}
        number = next(_numbers)
        node = f"bench-{number}-{time.time_ns()}@bench"
        command = (self.python, "-m", "celery", "-A", "celery_app", "worker", *options, "-l", "info", "-n", node, "-E")
        label = f"worker-{self.name}-{pool}-{number}"
        with programs.running(label, command, environ, self.path, self.servers.logs) as program:
            yield program


@dataclasses.dataclass(frozen=True)
class RunningGateway:
    """A gateway, ours or a peer's, that answers."""

    program: MeasuredProgram
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def fill(self, count: int, payload: Mapping[str, Any] | None = None) -> list[str]:
        """Submit tasks; their ids.

        Args:
            count: how many.
            payload: fields of an `echo` besides its message.
        """
        words = (self.url, count, _FILLING, json.dumps(payload or {}))
        outcome, _ = load.in_process("fill", *words, within=60 + count / 20)
        return [str(task_id) for task_id in outcome["ids"]]
