"""The cost of logs, metrics and traces: CPU time a request and a task, interleaved, on real servers.

``python -m bench telemetry`` (`bench.parts.telemetry`), in whose process the settings are those of the servers. Counts the CPU time of all threads and processes involved; a collector in a child process discards the spans. The variants
run in turns, and each figure is the lower quartile of its rounds, since other load can only increase it.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import logging
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from pydantic import SecretStr

import topology
from app import create_app
from bench.harness import procfs
from celery_app import create_celery
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from dispatch.protocol.ids import child_traceparent
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.submission.submitter import Submission, Submitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import metrics, tracing

#: Turns of each variant, and requests or tasks a turn: short turns, so that all variants run under the same other load.
REQUESTS, TASKS = (60, 25), (24, 50)

#: Requests at the start of a turn that are not counted.
WARM_UP = 3

#: Seconds between two exports of spans: each turn waits for its export, which would otherwise count for the next.
EXPORT = 1.0
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

#: Code that disables metrics in a worker.
_WITHOUT_METRICS = (
    "from dispatch.telemetry.metrics import Instrument as I\n"
    "I.inc = I.set = lambda self, *_: None\nI.observe = lambda self, *_, **__: None\n"
)


def measure(tables: Sequence[str]) -> None:
    """Print tables.

    Args:
        tables: ``requests``, ``tasks``.
    """
    base = configuration.load()
    with _collector() as url:
        if "requests" in tables:
            _print("a POST /v1/tasks", REQUESTS, _requests(base, url))
        if "tasks" in tables:
            _print("a task (main process and children)", TASKS, _tasks(base, url))


def _print(unit: str, size: tuple[int, int], samples: Mapping[str, list[float]]) -> None:
    quartiles = {name: statistics.quantiles(costs, n=4)[0] for name, costs in samples.items()}
    sys.stdout.write(f"\nCPU µs for {unit}; {size[0]} turns of {size[1]}\n")
    for name, cost in quartiles.items():
        extra = cost - quartiles["nothing"]
        sys.stdout.write(f"{name:22} {cost:8.0f} {extra:+8.0f} {100 * extra / quartiles['nothing']:+6.1f} %\n")


def _turns() -> list[tuple[str, frozenset[str]]]:
    """The variants in random order: deferred work of one variant must not always count for the same other one."""
    return random.sample(list(VARIANTS.items()), len(VARIANTS))


# --- the gateway -----------------------------------------------------------------------------------
def _requests(base: Settings, url: str) -> dict[str, list[float]]:
    settings = base.model_copy(update={"redis_prefix": "bench-http:", "queue_depth_limit": 10**6})
    _tracing_off()
    plain = create_app(settings)
    _tracing_on(url)
    traced = create_app(settings)
    backend = tracing.backend()
    samples: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(REQUESTS[0] + 1):
        for name, on in _turns():
            recording = bool(on & {"traces", "unsampled"})
            tracing._backend = backend if recording else None  # noqa: SLF001 - both in one process, alternating
            client = (traced if recording else plain).test_client()
            _switched(
                on, functools.partial(_post, client, WARM_UP, sampled=False)
            )  # absorbs deferred work of the previous turn
            cpu = _switched(on, functools.partial(_post, client, REQUESTS[1], sampled="unsampled" not in on))
            if round_:
                samples[name].append(cpu)
    for app in (plain, traced):
        app.extensions["close"]()
    return samples


def _post(client: Any, count: int, *, sampled: bool) -> None:
    flags = "01" if sampled else "00"
    for _ in range(count):
        headers = {"traceparent": f"{child_traceparent(None)[:-2]}{flags}", "Content-Type": "application/json"}
        answer = client.post("/v1/tasks", data=BODY, headers=headers)
        assert answer.status_code == 202, answer.text  # noqa: S101
    if (backend := tracing.backend()) is not None:
        backend._provider.force_flush()  # type: ignore[attr-defined] # noqa: SLF001 - otherwise it counts for another turn


def _switched(on: frozenset[str], work: Callable[[], None]) -> float:
    """CPU µs a request of a piece of work with only these switched on."""
    logging.disable(logging.NOTSET if "logs" in on else logging.CRITICAL)
    for name, real in _REAL.items():
        setattr(metrics.Instrument, name, real if "metrics" in on else lambda *_args, **_more: None)
    with contextlib.redirect_stderr(io.StringIO()):
        started = time.process_time()
        work()
        return (time.process_time() - started) / REQUESTS[1] * 1e6


# --- the worker ------------------------------------------------------------------------------------
def _tasks(base: Settings, url: str) -> dict[str, list[float]]:
    """Start a worker for each variant, each with its own vhost, and submit tasks to them in turns."""
    _tracing_off()
    samples: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with contextlib.ExitStack() as stack:
        logging.disable(logging.CRITICAL)
        runs = {name: stack.enter_context(_worker(base, name, on, url)) for name, on in VARIANTS.items()}
        for round_ in range(TASKS[0] + 1):
            for name, on in _turns():
                cpu = runs[name]("00" if "unsampled" in on else "01")
                if round_:
                    samples[name].append(cpu)
    return samples


@contextlib.contextmanager
def _worker(base: Settings, name: str, on: frozenset[str], url: str) -> Iterator[Callable[[str], float]]:
    """Start a worker for a variant; yields a function that runs a batch and returns the CPU µs a task."""
    own = f"bench-{name.replace(' ', '').replace(',', '')}"
    settings = base.model_copy(update={"redis_prefix": f"{own}:", "broker_url": SecretStr(_vhost(base, own))})
    provision.apply(topology.broker_map(settings), settings)
    environ = {**os.environ, "DISPATCH_REDIS_PREFIX": settings.redis_prefix, "REMAP_SIGTERM": "SIGQUIT"}
    environ["DISPATCH_BROKER_URL"] = settings.broker("worker")
    if on & {"traces", "unsampled"}:
        environ |= {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        environ["OTEL_BSP_SCHEDULE_DELAY"] = str(int(EXPORT * 1_000))
    shim = "" if "metrics" in on else _WITHOUT_METRICS
    arguments = ["celery", "-A", "celery_app", "worker", "-l", "INFO" if "logs" in on else "CRITICAL", "-c", "2"]
    arguments += ["-n", f"{own}-{time.time_ns()}@bench"]
    code = f"{shim}import sys\nsys.argv = {arguments!r}\nfrom celery.__main__ import main\nmain()"
    quiet = subprocess.DEVNULL
    redis = RedisHandle(settings, timeout=settings.store_timeout)
    store, publisher = TaskStore(redis, settings), Publisher(settings.broker("gateway"))
    celery = create_celery(settings)
    ladders = Ladders.of_types(settings.ladder, celery.dispatch_types.values())
    submitter = Submitter(store, IdempotencyKeys(redis, settings), publisher, celery.tasks, ladders)
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=quiet, stderr=quiet) as worker:
        try:
            yield lambda flags: _run_batch(submitter, store, celery.dispatch_types["echo"], worker.pid, flags)
        finally:
            worker.terminate()
            publisher.close()
            redis.close()


def _vhost(base: Settings, name: str) -> str:
    """The broker's URL with a vhost of this name, created if missing."""
    parts = urlsplit(base.broker_url.get_secret_value())
    with httpx.Client(base_url=base.management_url.get_secret_value(), timeout=10, trust_env=False) as api:
        api.put(f"/api/vhosts/{name}").raise_for_status()
        permissions = {"configure": ".*", "write": ".*", "read": ".*"}
        api.put(f"/api/permissions/{name}/{parts.username}", json=permissions).raise_for_status()
    return urlunsplit(parts._replace(path=f"/{name}"))


def _run_batch(submitter: Submitter, store: TaskStore, task_type: TaskType, pid: int, flags: str) -> float:
    """Run a batch of tasks; the worker's CPU µs a task."""
    started = procfs.cpu(pid)
    ids = []
    for _ in range(TASKS[1]):
        traceparent = f"{child_traceparent(None)[:-2]}{flags}"
        submission = Submission("local", task_type, {"message": "x"}, "f", None, "rq", traceparent)
        ids.append(submitter.submit(submission).record.task_id)
    while any(record is None or not record.state.terminal for record in store.get_many(ids)):
        time.sleep(0.02)
    time.sleep(EXPORT + 0.3)  # for the last acks, log lines and spans
    return (procfs.cpu(pid) - started) / TASKS[1] * 1e6


# --- tracing ---------------------------------------------------------------------------------------
def _tracing_on(url: str) -> None:
    os.environ.update(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=url)


def _tracing_off() -> None:
    os.environ.pop("OTEL_TRACES_EXPORTER", None)
    tracing._backend = None  # noqa: SLF001


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """A collector in a separate process that discards what it receives."""
    ports: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=_discard, args=(ports,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=10)}"
    finally:
        process.terminate()


def _discard(ports: Any) -> None:
    class _Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    ports.put(server.server_port)
    server.serve_forever()
