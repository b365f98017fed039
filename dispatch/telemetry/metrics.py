"""Metrics: their definitions and their values in this process.

The processes of a gateway share values through files (`share`), so that each of them exports the total. A worker counts
in its main process only, which handles every delivery; its children count nothing.

Label values are from closed sets, with ``other`` for the rest, so that no message can create a series.
``docs/reference/metrics.md`` is generated from this module: ``python -m dispatch.telemetry.metrics``.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import prometheus_client
from prometheus_client import CollectorRegistry, values
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from dispatch import __version__

Where = Literal["gateway", "worker", "both"]

OTHER = "other"

#: Include the bounds of the service level objectives (0.3, 0.8 and 1 s).
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 2, 5)
_CONFIRM = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_RUN = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600)
_WAIT = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1_800, 3_600)

#: Reasons of dead letters.
DEAD_REASONS = frozenset({
    "permanent", "retries-exhausted", "deadline-exceeded", "undecodable", "malformed", "too-large", "unknown-type", "expired",
    "delivery-limit", "queue-full", "rejected", "unauthentic", "undecryptable",
})  # fmt: skip

_files: tuple[str, str] | None = None  #: directory and identity, once `share` was called
_types: set[str] = set()


class Instrument:
    """One metric; created on first use, since `share` decides how values are stored.

    Args:
        kind: ``counter``, ``gauge`` or ``histogram``.
        name: metric name in Prometheus.
        text: help text.
        labels: label names.
        where: the process that exports it.
        buckets: upper bounds of a histogram, in seconds.
        across: how a gauge aggregates the values of several processes.
    """

    every: list[Instrument] = []  # noqa: RUF012 - all instruments, in source order

    def __init__(
        self, kind: str, name: str, text: str, labels: tuple[str, ...] = (), *, where: Where,
        buckets: tuple[float, ...] = (), across: str = "max",
    ) -> None:  # fmt: skip
        self.kind, self.name, self.text, self.labels, self.where = kind, name, text, labels, where
        self._buckets, self._across = buckets, across
        self._creation = threading.Lock()
        self._metric: Any = None
        self._series: dict[tuple[str, ...], Any] = {}
        Instrument.every.append(self)

    def inc(self, *labels: str) -> None:
        """Increment by one."""
        self._of(labels).inc()

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._of(labels).set(value)

    def observe(self, value: float, *labels: str, trace: str | None = None) -> None:
        """Observe a value in a histogram.

        Args:
            value: seconds.
            labels: label values, in the order of the names.
            trace: id of a recorded trace, as the exemplar.
        """
        self._of(labels).observe(max(0.0, value), {"trace_id": trace} if trace and _files is None else None)

    def initialise(self, *labels: str) -> None:
        """Create the series at 0: rate() cannot see the jump from absent to 1."""
        self._of(labels)

    def totals(self) -> dict[tuple[str, ...], float]:
        """The values of a counter by label values, in a process that shares them with no other."""
        return {
            tuple(sample.labels[name] for name in self.labels): sample.value
            for sample in self._samples()
            if sample.name.endswith("_total")
        }

    def buckets(self) -> dict[float, int]:
        """The counts of a histogram by upper bound, not cumulated, of all label values together; as `totals`."""
        counts, below = dict.fromkeys((*self._buckets, math.inf), 0), 0
        for sample in self._samples():
            if not sample.name.endswith("_bucket"):
                below = 0
                continue
            counts[float(sample.labels["le"])] += int(sample.value) - below
            below = int(sample.value)
        return counts

    def _samples(self) -> list[Any]:
        return [] if self._metric is None else [each for metric in self._metric.collect() for each in metric.samples]

    def reset(self) -> None:
        """Drop all series; the next use creates the metric again, with the current storage."""
        if self._metric is not None:
            REGISTRY.unregister(self._metric)
        self._metric, self._series = None, {}

    def _of(self, labels: tuple[str, ...]) -> Any:
        series = self._series.get(labels)
        if series is None:
            with self._creation:  # the registry rejects a duplicate
                if self._metric is None:
                    self._metric = self._create()
                series = self._series[labels] = self._metric.labels(*labels) if labels else self._metric
        return series

    def _create(self) -> Any:
        arguments = (self.name, self.text, self.labels)
        match self.kind:
            case "counter":
                return prometheus_client.Counter(*arguments, registry=REGISTRY)
            case "gauge":
                mode: Any = self._across
                return prometheus_client.Gauge(*arguments, registry=REGISTRY, multiprocess_mode=mode)
            case _:
                return prometheus_client.Histogram(*arguments, registry=REGISTRY, buckets=self._buckets)


def _counter(name: str, text: str, *labels: str, where: Where) -> Instrument:
    return Instrument("counter", name, text, labels, where=where)


def _histogram(name: str, text: str, *labels: str, where: Where, buckets: tuple[float, ...]) -> Instrument:
    return Instrument("histogram", name, text, labels, where=where, buckets=buckets)


def _gauge(name: str, text: str, *labels: str, where: Where, across: str = "max") -> Instrument:
    return Instrument("gauge", name, text, labels, where=where, across=across)


REGISTRY = CollectorRegistry()

# --- gateway --------------------------------------------------------------------------------------
HTTP_REQUESTS = _counter(
    "robot_http_requests_total",
    "Requests completed, by route template.",
    "method",
    "route",
    "status",
    where="gateway",
)
HTTP_DURATION = _histogram(
    "robot_http_request_duration_seconds",
    "Time until the response, without the wait of long polls (Prefer: wait).",
    "method", "route", "status", where="gateway", buckets=_REQUEST,
)  # fmt: skip
ACCEPTED = _counter(
    "robot_tasks_accepted_total",
    "Tasks accepted (202), without replays of an Idempotency-Key.",
    "type",
    where="gateway",
)
REFUSED = _counter(
    "robot_tasks_refused_total", "Submissions refused, by the slug of the problem.", "reason", where="gateway"
)
QUOTA_REFUSALS = _counter(
    "robot_quota_refusals_total",
    "Requests refused because a quota of their principal is used up: requests, open-tasks, stored-bytes, dead-letters.",
    "quota",
    where="gateway",
)
HTTP_UNAUTHENTICATED = _counter(
    "robot_http_unauthenticated_total",
    "Requests refused with 401. With API keys: missing, malformed (no bearer token), unknown, expired; without: peer, host, "
    "origin, forwarded (through a proxy).",
    "reason",
    where="gateway",
)
KEY_FILE_FAILING = _gauge(
    "robot_api_keys_file_failing",
    "1 while the file of API keys can't be used; what it held before stays in force.",
    where="gateway",
)
HTTP_REJECTED = _counter(
    "robot_http_rejected_total",
    "Requests refused before the application: malformed, ambiguous, too large, or a head that did not arrive in time (408).",
    "status",
    where="gateway",
)
HTTP_CUT = _counter(
    "robot_http_connections_cut_total",
    "Connections refused or ended: peer (too many of one address), full (as many as the process holds), idle (closed to make "
    "room), head, body, write (the client sent or read too slowly), tls (the handshake failed).",
    "reason",
    where="gateway",
)
HTTP_WAITING = _gauge(
    "robot_http_waiting", "Long polls and event streams that wait for a task.", "kind", where="gateway", across="sum"
)
HTTP_WAITS_REFUSED = _counter(
    "robot_http_waits_refused_total",
    "Long polls and event streams without a place: room (DISPATCH_HTTP_WAITS), share (DISPATCH_HTTP_WAITS_PER_PRINCIPAL).",
    "reason",
    where="gateway",
)
HTTP_UNREAD_BODIES = _counter(
    "robot_http_unread_bodies_total",
    "Responses that preceded the end of a request body: drained, or closed (the connection, beyond DISPATCH_HTTP_DRAIN_*).",
    "outcome",
    where="gateway",
)
AUDIT_LOST = _counter(
    "robot_audit_entries_lost_total",
    "Audit entries that Redis did not take: they are in the log only.",
    where="both",
)
CONFIRM = _histogram(
    "robot_publish_confirm_seconds", "From the publish to RabbitMQ's confirm.", where="both", buckets=_CONFIRM
)
REFUSING = _gauge(
    "robot_queue_guard_refusing", "1 while the gateway responds 429 because the queue is full.", where="gateway"
)
DEPTH = _gauge(
    "robot_queue_depth",
    "Ready messages in the work queue, exact, read once a second.",
    where="gateway",
    across="mostrecent",
)

SIGNALS = _counter(
    "robot_signals_total",
    "Signals for tasks that were accepted, callbacks included: ended-wait, or kept.",
    "type", "outcome", where="gateway",
)  # fmt: skip

# --- worker ---------------------------------------------------------------------------------------
SIGNAL_WAITS = _counter(
    "robot_signal_waits_total", "Waits that began for a signal, each with a time at most.", "type", where="worker"
)
ATTEMPTS = _counter(
    "robot_task_attempts_total",
    "Attempts ended: succeeded, waited (a step that ended in a wait), retried, parked (no attempt used up), dead; worker-lost and time-limit in addition.",
    "type", "outcome", where="worker",
)  # fmt: skip
DURATION = _histogram("robot_task_duration_seconds", "Duration of an attempt.", "type", where="worker", buckets=_RUN)
QUEUE_TIME = _histogram(
    "robot_task_queue_seconds",
    "Time in the work queue and prefetched by the worker: from acceptance, or the end of the rung's TTL or of the delay, to the start.",
    "type", where="worker", buckets=_WAIT,
)  # fmt: skip
RETRIES = _counter("robot_task_retries_total", "Copies published to a rung.", "type", "rung", where="worker")
DEAD_LETTERS = _counter(
    "robot_dead_letters_total",
    "Dead letters recorded, those dead-lettered by the broker included.",
    "reason",
    where="worker",
)
CLAIMS = _counter("robot_claims_total", "Results of claims; UNKNOWN: Redis did not respond.", "answer", where="worker")
LEASES_LOST = _counter(
    "robot_leases_lost_total", "Leases that expired or were taken over while their task ran.", where="worker"
)
IN_FLIGHT = _gauge("robot_tasks_in_flight", "Deliveries that this worker runs.", where="worker")
RUNAWAYS = _gauge(
    "robot_runaway_threads",
    "Threads that run beyond their time limit, of a worker with --pool=threads; too many, and it ends.",
    where="worker",
)
SWEEPS = _counter(
    "robot_sweeper_actions_total",
    "Tasks that the sweeper rejected, published, sent again, or recorded as lost.",
    "action",
    where="worker",
)

# --- from collectors, created at each scrape -------------------------------------------------------
QUEUE_MESSAGES = (
    "robot_queue_messages",
    "Messages by state: ready, unacked, total; statistics of RabbitMQ, some seconds old.",
    ("queue", "state"),
)
QUEUE_CONSUMERS = ("robot_queue_consumers", "Consumers of a queue.", ("queue",))
OLDEST = (
    "robot_queue_oldest_message_age_seconds",
    "Age of the oldest task in the work queue or the DLQ; 0 when there is none. From the records.",
    ("queue",),
)
DRIFT = ("robot_topology_drift", "Differences between RabbitMQ and the broker map.", ())
REDIS_MEMORY = (
    "robot_redis_memory_ratio",
    "Memory in use as a share of maxmemory (without one, of the machine's), of the fullest Redis node; at 1 no task is accepted.",
    (),
)
SCHEDULES = (
    "robot_schedules",
    "Schedules that wait for their next due time, are paused, whose due time was not handled within a minute (missed), or whose last due time led to no task (failing).",
    ("state",),
)
LAST_FIRE = (
    "robot_schedule_last_fire_timestamp_seconds",
    "The last due time of any schedule whose task was submitted, epoch seconds.",
    (),
)
HELD = (
    "robot_held_tasks",
    "Tasks that are held: by pauses (all, type, principal, key), or for their turn (concurrency, rate).",
    ("what",),
)
BUILD = ("robot_build_info", "1; the version is in the label.", ("version",))


def share(directory: str, identity: str) -> None:
    """Store this process's values in files that all processes of the gateway read; call before the first count.

    Args:
        directory: shared by all processes.
        identity: name of this process's files: a slot, whose counts a successor continues; not a pid, since files of
            dead processes would accumulate.
    """
    global _files  # noqa: PLW0603 - one for each process
    _files = (directory, identity)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
    for instrument in Instrument.every:
        instrument.reset()


def register_types(names: Iterable[str]) -> None:
    """Add task types with a label value of their own."""
    _types.update(names)


def known_types() -> frozenset[str]:
    """The task types with a label value of their own."""
    return frozenset(_types)


def type_label(name: str) -> str:
    """The label value of a task type."""
    return name if name in _types else OTHER


def one_of(value: str, allowed: Collection[str]) -> str:
    """The label value for a closed set."""
    return value if value in allowed else OTHER


def render(accept: str | None, *collectors: Any) -> tuple[bytes, str]:
    """The exposition of this process, or of all processes that share values.

    Args:
        accept: the Accept header of the scrape.
        collectors: collected as well.

    Returns:
        Body and content type.
    """
    encode, content_type = choose_encoder(accept or "")
    return encode(registry(*collectors)), content_type


def registry(*collectors: Any) -> CollectorRegistry:
    """The registry of a scrape."""
    result = CollectorRegistry()
    if _files is None:
        result.register(_Own())
    else:
        MultiProcessCollector(result, _files[0])  # type: ignore[no-untyped-call]
    for collector in (_Build(), *collectors):
        result.register(collector)
    return result


def family(
    description: tuple[str, str, tuple[str, ...]], samples: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    """A gauge from a collector.

    Args:
        description: name, help text and label names, e.g. `QUEUE_MESSAGES`.
        samples: values by label values.
    """
    name, text, labels = description
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in samples.items():
        gauge.add_metric(label_values, value)
    return gauge


class _Own:
    """The values of this process."""

    def collect(self) -> Iterable[Metric]:
        return REGISTRY.collect()


class _Build:
    """The version of this build."""

    def collect(self) -> Iterable[Metric]:
        yield family(BUILD, {(__version__,): 1})


def reference() -> str:
    """The text of ``docs/reference/metrics.md``."""
    return "\n".join([
        "# Metrics",
        "",
        "Generated from `dispatch/telemetry/metrics.py`; a test compares the two.",
        "",
        _INTRODUCTION,
        *_table("The gateway", lambda metric: metric.where in ("gateway", "both")),
        *_table("A worker", lambda metric: metric.where in ("worker", "both")),
        "## The queues and the build",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
        *(_row(name, "gauge", labels, text) for name, text, labels in (QUEUE_MESSAGES, QUEUE_CONSUMERS, OLDEST, DRIFT, REDIS_MEMORY, HELD, SCHEDULES, LAST_FIRE, BUILD)),
        "",
    ])  # fmt: skip


_INTRODUCTION = """\
`GET /metrics` of the gateway exports the totals of its processes. A worker exports its own metrics on
`DISPATCH_WORKER_METRICS_PORT`; all workers export the same queue metrics, so take the maximum. With
`Accept: application/openmetrics-text` a worker's histograms carry trace ids as exemplars.

Times are histograms in seconds. `type` is a task type, `other` for one that the process does not know; all other label
values are from closed sets, too.

**The oldest message.** RabbitMQ does not report it for quorum queues. `robot:waiting` in Redis holds the earliest time at
which each task can be in the work queue (for a copy on a rung: the end of its TTL; for a delayed task: its `wakesAt`); the claim removes the entry. So the
age is that of a task which is queued and not claimed, wherever its copy is: it includes a copy stuck on a rung after its
TTL, and excludes a message without a record (Redis was wiped). For the DLQ it is the age of the oldest dead letter.
"""


def _table(title: str, include: Callable[[Instrument], bool]) -> list[str]:
    rows = [
        _row(metric.name, metric.kind, metric.labels, metric.text) for metric in Instrument.every if include(metric)
    ]
    return [f"## {title}", "", "| metric | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows, ""]


def _row(name: str, kind: str, labels: tuple[str, ...], text: str) -> str:
    return f"| `{name}` | {kind} | {' '.join(f'`{label}`' for label in labels)} | {text} |"


if __name__ == "__main__":
    import signal
    import sys

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends it as it ends any program
    sys.stdout.write(reference())
