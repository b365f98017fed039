"""The peers as programs, with a vhost and a Redis database of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.harness import load, programs
from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import RunningGateway
from bench.harness.programs import MeasuredProgram
from bench.harness.servers import ROOT, BenchServers
from bench.peers.addresses import AIO_PIKA_QUEUE, CELERY_QUEUE, DRAMATIQ_QUEUE, PREFETCH

#: Where `make bench-setup` installs them.
_ENVIRONMENT = ROOT / ".run" / "bench-venv"

#: Of Redis; checkouts have the lower ones.
_DATABASE = 15

#: Seconds in which a queue must have been filled.
_FILLED = 240.0

#: Threads of a Flask process.
_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Peers:
    """What their programs share."""

    servers: BenchServers
    broker_url: str
    bin: Path  #: of their environment

    @classmethod
    def installed(cls, servers: BenchServers) -> Peers:
        """Those that `make bench-setup` installed.

        Raises:
            BenchmarkFailed: they are not.
        """
        if not (_ENVIRONMENT / "bin" / "python").exists():
            raise BenchmarkFailed("the peers are not installed: make bench-setup")
        return cls(servers, servers.vhost("peers"), _ENVIRONMENT / "bin")

    @classmethod
    def of_this_environment(cls, servers: BenchServers) -> Peers:
        """Stock Celery only, which is in our own environment."""
        return cls(servers, servers.vhost("peers"), Path(sys.executable).parent)

    @property
    def environ(self) -> dict[str, str]:
        """Of their programs."""
        own = {"PEER_BROKER_URL": self.broker_url, "PEER_REDIS_URL": self.servers.redis_url(_DATABASE)}
        return (
            {name: text for name, text in self.servers.environ.items() if not name.startswith("DISPATCH_")}
            | own
            | {"PYTHONPATH": str(ROOT)}
        )

    def forget(self) -> None:
        """Empty their queues and their database."""
        with contextlib.closing(self.servers.redis(_DATABASE)) as client:
            client.flushdb()
        with self.servers.management() as api:
            for queue in (AIO_PIKA_QUEUE, CELERY_QUEUE, DRAMATIQ_QUEUE):
                api.delete(f"/api/queues/peers/{queue}/contents")  # 404 where a peer is not measured

    def results(self) -> int:
        """Results in Redis, whichever peer's."""
        with contextlib.closing(self.servers.redis(_DATABASE)) as client:
            return int(client.dbsize())

    @contextlib.contextmanager
    def fastapi(self, workers: int) -> Iterator[RunningGateway]:
        """FastAPI under uvicorn with uvloop and httptools.

        Args:
            workers: processes.
        """
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]
        port = programs.free_port()
        words = ["uvicorn", "bench.peers.fastapi_gateway:app", "--workers", str(workers), "--port", str(port), *options]
        with self._gateway(f"fastapi-{workers}", words, port) as gateway:
            yield gateway

    @contextlib.contextmanager
    def flask(self, workers: int = 2) -> Iterator[RunningGateway]:
        """Flask under gunicorn with threads, in front of dramatiq.

        Args:
            workers: processes.
        """
        port = programs.free_port()
        options = ["-w", str(workers), "-k", "gthread", "--threads", str(_THREADS), "--log-level", "error"]
        words = ["gunicorn", *options, "-b", f"127.0.0.1:{port}", "--keep-alive", "75", "--no-control-socket"]
        with self._gateway("flask", [*words, "bench.peers.flask_gateway:app"], port) as gateway:
            yield gateway

    @contextlib.contextmanager
    def celery(self) -> Iterator[MeasuredProgram]:
        """Celery's prefork worker with two children and results in Redis."""
        node = f"peer-{time.time_ns()}@bench"
        words = ["celery", "-A", "bench.peers.celery_tasks", "worker", "-c", "2", "-l", "WARNING", "-n", node]
        with self._running("celery", words) as program:
            yield program

    @contextlib.contextmanager
    def dramatiq(self) -> Iterator[MeasuredProgram]:
        """A worker of dramatiq: two processes of eight threads, results in Redis."""
        words = ["dramatiq", "bench.peers.dramatiq_tasks", "--processes", "2", "--threads", "8"]
        with self._running("dramatiq", words) as program:
            yield program

    def fill(self, module: str, count: int) -> None:
        """Queue tasks.

        Args:
            module: ``celery_tasks`` or ``dramatiq_tasks``.
            count: how many.

        Raises:
            BenchmarkFailed: it failed.
        """
        command = [str(self.bin / "python"), "-m", f"bench.peers.{module}", str(count), load.MESSAGE]
        programs.completed(command, self.environ | {"PEER_FILLS": "1"}, ROOT, _FILLED)

    @contextlib.contextmanager
    def _gateway(self, name: str, words: Sequence[str], port: int) -> Iterator[RunningGateway]:
        with self._running(name, words) as program:
            program.require(lambda: programs.answers(port), f"{name} that is ready")
            yield RunningGateway(program, port)

    @contextlib.contextmanager
    def _running(self, name: str, words: Sequence[str]) -> Iterator[MeasuredProgram]:
        command = [str(self.bin / "python"), "-m", *words]
        environ = self.environ | {"dramatiq_queue_prefetch": str(PREFETCH)}
        with programs.running(name, command, environ, ROOT, self.servers.logs) as program:
            yield program
