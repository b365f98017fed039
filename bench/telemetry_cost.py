"""What logs, metrics and traces cost: CPU time for each request and each task, interleaved, on real servers.

::

    DISPATCH_RUN_DIR=.run-bench python -m launcher servers
    set -a; . .run-bench/env; set +a
    python -m bench.telemetry_cost

CPU time of all threads and processes concerned, so that other load on the machine matters little; spans go to a
collector in this process's child that throws them away. Each figure is a median over rounds, in which the variants
take turns.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app import create_app
from celery_app import create_celery
from dispatch import settings as configuration
from dispatch.gateway.submission import Submission, Submitter
from dispatch.publisher import Publisher
from dispatch.records import child_traceparent
from dispatch.settings import Settings
from dispatch.store import Store
from dispatch.telemetry import metrics, tracing

ROUNDS, BATCH = 12, 100
BODY = json.dumps({"type": "echo", "payload": {"message": "x"}})

VARIANTS: Mapping[str, frozenset[str]] = {
    "nothing": frozenset(),
    "logs": frozenset({"logs"}),
    "metrics": frozenset({"metrics"}),
    "traces, sampled": frozenset({"traces"}),
    "traces, not sampled": frozenset({"unsampled"}),
    "all, sampled": frozenset({"logs", "metrics", "traces"}),
}

_REAL = {name: getattr(metrics.Instrument, name) for name in ("inc", "observe", "set")}

#: Starts a worker that counts nothing.
_WITHOUT_METRICS = (
    "from dispatch.telemetry.metrics import Instrument as I\n"
    "I.inc = I.set = lambda self, *_: None\nI.observe = lambda self, *_, **__: None\n"
)


def main() -> None:
    """Print the tables that the command line names: ``requests``, ``tasks``; both by default."""
    base = configuration.load()
    wanted = sys.argv[1:] or ["requests", "tasks"]
    with _sink() as url:
        if "requests" in wanted:
            _print("a POST /v1/tasks", _requests(base, url))
        if "tasks" in wanted:
            _print("a task (main process and children)", _tasks(base, url))


def _print(what: str, took: Mapping[str, list[float]]) -> None:
    nothing = statistics.median(took["nothing"])
    sys.stdout.write(f"\nCPU µs for {what}; {len(took['nothing'])} rounds of {BATCH}\n")
    for name, samples in took.items():
        # Rounds are compared with their own neighbour: drift of the machine falls out.
        more = statistics.median(a - b for a, b in zip(samples, took["nothing"], strict=True))
        sys.stdout.write(f"{name:22} {statistics.median(samples):8.0f} {more:+8.0f} {100 * more / nothing:+6.1f} %\n")


# --- the gateway -----------------------------------------------------------------------------------
def _requests(base: Settings, url: str) -> dict[str, list[float]]:
    settings = base.model_copy(update={"redis_prefix": "bench-http:", "queue_depth_limit": 10**6})
    _tracing_off()
    plain = create_app(settings)
    _tracing_on(url)
    traced = create_app(settings)
    backend = tracing.backend()
    took: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(ROUNDS + 1):
        for name, on in VARIANTS.items():
            recording = bool(on & {"traces", "unsampled"})
            tracing._backend = backend if recording else None  # noqa: SLF001 - both in one process, in turns
            client = (traced if recording else plain).test_client()
            cpu = _switched(on, lambda client=client, on=on: _post(client, sampled="unsampled" not in on))
            if round_:
                took[name].append(cpu)
    for app in (plain, traced):
        app.extensions["close"]()
    return took


def _post(client: Any, *, sampled: bool) -> None:
    flags = "01" if sampled else "00"
    for _ in range(BATCH):
        headers = {"traceparent": f"{child_traceparent(None)[:-2]}{flags}", "Content-Type": "application/json"}
        answer = client.post("/v1/tasks", data=BODY, headers=headers)
        assert answer.status_code == 202, answer.text  # noqa: S101


def _switched(on: frozenset[str], work: Callable[[], None]) -> float:
    """CPU µs of one piece of work with only these switched on."""
    logging.disable(logging.NOTSET if "logs" in on else logging.CRITICAL)
    for name, real in _REAL.items():
        setattr(metrics.Instrument, name, real if "metrics" in on else lambda *_args, **_more: None)
    with contextlib.redirect_stderr(io.StringIO()):
        began = time.process_time()
        work()
        return (time.process_time() - began) / BATCH * 1e6


# --- the worker ------------------------------------------------------------------------------------
def _tasks(base: Settings, url: str) -> dict[str, list[float]]:
    _tracing_off()
    took: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(2):  # of a worker for each variant
        for name, on in VARIANTS.items():
            settings = base.model_copy(
                update={"redis_prefix": f"bench-{round_}-{name.replace(' ', '').replace(',', '')}:"}
            )
            took[name] += _one_worker(settings, on, url)
    return took


def _one_worker(settings: Settings, on: frozenset[str], url: str) -> list[float]:
    environ = {**os.environ, "DISPATCH_REDIS_PREFIX": settings.redis_prefix, "REMAP_SIGTERM": "SIGQUIT"}
    if on & {"traces", "unsampled"}:
        environ |= {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
    shim = "" if "metrics" in on else _WITHOUT_METRICS
    words = ["celery", "-A", "celery_app", "worker", "-l", "INFO" if "logs" in on else "CRITICAL", "-c", "2"]
    words += ["-n", f"bench-{time.time_ns()}@bench"]
    code = f"{shim}import sys\nsys.argv = {words!r}\nfrom celery.__main__ import main\nmain()"
    with subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-c", code], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            return _feed(settings, worker.pid, sampled="unsampled" not in on)
        finally:
            worker.terminate()


def _feed(settings: Settings, pid: int, *, sampled: bool) -> list[float]:
    celery = create_celery(settings)
    logging.disable(logging.CRITICAL)
    store = Store(settings)
    publisher = Publisher(settings.broker("gateway"))
    submitter = Submitter(settings, store, publisher, celery)
    flags, took = ("01" if sampled else "00"), []
    try:
        for batch in range(ROUNDS // 2 + 1):
            began = _cpu(pid)
            ids = [
                submitter.submit(
                    Submission(
                        "local", celery.dispatch_types["echo"], {"message": "x"}, "f", None, "rq",
                        f"{child_traceparent(None)[:-2]}{flags}",
                    )
                ).record.task_id
                for _ in range(BATCH)
            ]  # fmt: skip
            while any(record is None or not record.state.terminal for record in store.get_many(ids)):
                time.sleep(0.02)
            time.sleep(0.3)  # the last acks, and lines
            if batch:
                took.append((_cpu(pid) - began) / BATCH * 1e6)
    finally:
        publisher.close()
        store.close()
    return took


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children, living ones."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_own_cpu(each) for each in (str(pid), *children))


def _own_cpu(pid: str) -> float:
    """Of the scheduler's count, in nanoseconds: the clock ticks of ``stat`` are too coarse."""
    return (
        sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        / 1e9
    )


# --- tracing ---------------------------------------------------------------------------------------
def _tracing_on(url: str) -> None:
    os.environ.update(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=url)


def _tracing_off() -> None:
    os.environ.pop("OTEL_TRACES_EXPORTER", None)
    tracing._backend = None  # noqa: SLF001


@contextlib.contextmanager
def _sink() -> Iterator[str]:
    """A collector in a process of its own, that throws away what it gets."""
    ports: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=_swallow, args=(ports,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        process.terminate()


def _swallow(ports: Any) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()


if __name__ == "__main__":
    main()
