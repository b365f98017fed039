"""Metrics: every one there is, what it means, and its values in this process.

A gateway's processes share theirs through files (`share`), so that whichever is scraped tells them all. A worker's are
counted in its main process alone, which hears of every delivery; its children count nothing.

Label values are from closed sets; what is in none of them is ``other``, so that no message makes series.
``docs/reference/metrics.md`` is generated from this module: ``python -m dispatch.telemetry.metrics``.
"""

from __future__ import annotations

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

#: The bounds of the objectives (0.3, 0.8 and 1 s) are among them.
_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 2, 5)
_CONFIRM = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
_RUN = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600)
_WAIT = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 1_800, 3_600)

#: Why a letter is dead.
DEAD_REASONS = frozenset({
    "permanent", "retries-exhausted", "deadline-exceeded", "undecodable", "malformed", "too-large", "unknown-type", "expired",
    "delivery-limit", "queue-full", "rejected",
})  # fmt: skip

_files: tuple[str, str] | None = None  #: directory and identity, once they are shared
_types: set[str] = set()


class Instrument:
    """One metric; made when it is first used, since only then it is known how its values are kept.

    Args:
        kind: ``counter``, ``gauge`` or ``histogram``.
        name: as Prometheus knows it.
        text: what it means.
        labels: their names.
        where: who tells it.
        buckets: upper bounds, of a histogram.
        across: how the values of several processes make one, of a gauge.
    """

    every: list[Instrument] = []  # noqa: RUF012 - the list of all, in the order they are written

    def __init__(
        self, kind: str, name: str, text: str, labels: tuple[str, ...] = (), *, where: Where,
        buckets: tuple[float, ...] = (), across: str = "max",
    ) -> None:  # fmt: skip
        self.kind, self.name, self.text, self.labels, self.where = kind, name, text, labels, where
        self._buckets, self._across = buckets, across
        self._making = threading.Lock()
        self._metric: Any = None
        self._series: dict[tuple[str, ...], Any] = {}
        Instrument.every.append(self)

    def inc(self, *labels: str) -> None:
        """Count one."""
        self._of(labels).inc()

    def set(self, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._of(labels).set(value)

    def observe(self, value: float, *labels: str, trace: str | None = None) -> None:
        """Take a value into a histogram.

        Args:
            value: seconds.
            labels: values, in the order of the names.
            trace: the id of a trace that was recorded, as an example of this value.
        """
        self._of(labels).observe(max(0.0, value), {"trace_id": trace} if trace and _files is None else None)

    def expect(self, *labels: str) -> None:
        """Tell a series from the start: what begins with its first event has no rate at that event."""
        self._of(labels)

    def forget(self) -> None:
        """Start anew, with values kept another way."""
        if self._metric is not None:
            REGISTRY.unregister(self._metric)
        self._metric, self._series = None, {}

    def _of(self, labels: tuple[str, ...]) -> Any:
        series = self._series.get(labels)
        if series is None:
            with self._making:  # two threads that make the same metric at once: the second would be refused
                if self._metric is None:
                    self._metric = self._make()
                series = self._series[labels] = self._metric.labels(*labels) if labels else self._metric
        return series

    def _make(self) -> Any:
        given = (self.name, self.text, self.labels)
        match self.kind:
            case "counter":
                return prometheus_client.Counter(*given, registry=REGISTRY)
            case "gauge":
                mode: Any = self._across
                return prometheus_client.Gauge(*given, registry=REGISTRY, multiprocess_mode=mode)
            case _:
                return prometheus_client.Histogram(*given, registry=REGISTRY, buckets=self._buckets)


def _counter(name: str, text: str, *labels: str, where: Where) -> Instrument:
    return Instrument("counter", name, text, labels, where=where)


def _histogram(name: str, text: str, *labels: str, where: Where, buckets: tuple[float, ...]) -> Instrument:
    return Instrument("histogram", name, text, labels, where=where, buckets=buckets)


def _gauge(name: str, text: str, *labels: str, where: Where, across: str = "max") -> Instrument:
    return Instrument("gauge", name, text, labels, where=where, across=across)


REGISTRY = CollectorRegistry()

# --- the gateway's ---------------------------------------------------------------------------------
HTTP_REQUESTS = _counter(
    "robot_http_requests_total",
    "Requests answered, by the route's template.",
    "method",
    "route",
    "status",
    where="gateway",
)
HTTP_DURATION = _histogram(
    "robot_http_request_duration_seconds",
    "Time until the answer, without the time that the client asked us to wait (Prefer: wait).",
    "method", "route", "status", where="gateway", buckets=_REQUEST,
)  # fmt: skip
ACCEPTED = _counter(
    "robot_tasks_accepted_total", "Tasks answered 202; repeated keys don't count.", "type", where="gateway"
)
REFUSED = _counter(
    "robot_tasks_refused_total", "Submissions refused, by the problem's slug.", "reason", where="gateway"
)
CONFIRM = _histogram(
    "robot_publish_confirm_seconds", "From the publish to RabbitMQ's confirm.", where="both", buckets=_CONFIRM
)
REFUSING = _gauge(
    "robot_queue_guard_refusing", "1 while the gateway answers 429 because the queue is full.", where="gateway"
)
DEPTH = _gauge(
    "robot_queue_depth",
    "Ready messages in the work queue, exact, read once a second.",
    where="gateway",
    across="mostrecent",
)

# --- the worker's ----------------------------------------------------------------------------------
ATTEMPTS = _counter(
    "robot_task_attempts_total",
    "Attempts ended: succeeded, retried, parked (no attempt used up), dead; worker-lost and time-limit whatever followed.",
    "type", "outcome", where="worker",
)  # fmt: skip
DURATION = _histogram("robot_task_duration_seconds", "Time that an attempt ran.", "type", where="worker", buckets=_RUN)
QUEUE_TIME = _histogram(
    "robot_task_queue_seconds",
    "Time in the work queue and in the worker's hand: from acceptance, or the end of the rung's wait, to the start.",
    "type", where="worker", buckets=_WAIT,
)  # fmt: skip
RETRIES = _counter("robot_task_retries_total", "Copies put on a rung.", "type", "rung", where="worker")
DEAD_LETTERS = _counter(
    "robot_dead_letters_total", "Letters seen in the DLQ, the broker's own included.", "reason", where="worker"
)
CLAIMS = _counter(
    "robot_claims_total", "What the record said to deliveries; UNKNOWN: Redis did not answer.", "answer", where="worker"
)
LEASES_LOST = _counter(
    "robot_leases_lost_total", "Leases that lapsed or were taken while their task ran.", where="worker"
)
IN_FLIGHT = _gauge("robot_tasks_in_flight", "Deliveries that children of this worker run.", where="worker")
SWEEPS = _counter(
    "robot_sweeper_actions_total",
    "Tasks that the sweeper rejected, published, sent again, or found lost for good.",
    "action",
    where="worker",
)

# --- told by collectors, made at each scrape -------------------------------------------------------
QUEUE_MESSAGES = (
    "robot_queue_messages",
    "Messages by state: ready, unacked, total; as RabbitMQ counted some seconds ago.",
    ("queue", "state"),
)
QUEUE_CONSUMERS = ("robot_queue_consumers", "Consumers of a queue.", ("queue",))
OLDEST = (
    "robot_queue_oldest_message_age_seconds",
    "How long the oldest task has waited in the work queue, or lain in the DLQ; 0 when there is none. From the records.",
    ("queue",),
)
DRIFT = ("robot_topology_drift", "Differences between RabbitMQ and the broker map.", ())
BUILD = ("robot_build_info", "1; the version is in the label.", ("version",))


def share(directory: str, identity: str) -> None:
    """Keep this process's values in files that all processes of a gateway read; before anything is counted.

    Args:
        directory: the same for all.
        identity: whose files these are: a slot that a successor takes over with its counts, not a pid, since files of
            dead processes would pile up.
    """
    global _files  # noqa: PLW0603 - one for each process
    _files = (directory, identity)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
    for instrument in Instrument.every:
        instrument.forget()


def know_types(names: Iterable[str]) -> None:
    """The task types that get series of their own."""
    _types.update(names)


def known_types() -> frozenset[str]:
    """The task types that have series of their own."""
    return frozenset(_types)


def type_label(name: str) -> str:
    """A task type's name, as a label."""
    return name if name in _types else OTHER


def one_of(value: str, allowed: Collection[str]) -> str:
    """A value of a closed set, as a label."""
    return value if value in allowed else OTHER


def render(accept: str | None, *collectors: Any) -> tuple[bytes, str]:
    """Every metric of this process, or of all that share theirs.

    Args:
        accept: the scraper's Accept header.
        collectors: told as well.

    Returns:
        Body and content type.
    """
    encode, content_type = choose_encoder(accept or "")
    return encode(registry(*collectors)), content_type


def registry(*collectors: Any) -> CollectorRegistry:
    """What a scraper is told."""
    made = CollectorRegistry()
    if _files is None:
        made.register(_Own())
    else:
        MultiProcessCollector(made, _files[0])  # type: ignore[no-untyped-call]
    for collector in (_Build(), *collectors):
        made.register(collector)
    return made


def family(described: tuple[str, str, tuple[str, ...]], samples: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    """A gauge that a collector tells.

    Args:
        described: name, text and labels, from above.
        samples: values by labels.
    """
    name, text, labels = described
    made = GaugeMetricFamily(name, text, labels=labels)
    for given, value in samples.items():
        made.add_metric(given, value)
    return made


class _Own:
    """The values of this process."""

    def collect(self) -> Iterable[Metric]:
        return REGISTRY.collect()


class _Build:
    """Which version this is."""

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
        *_table("The gateway", lambda each: each.where in ("gateway", "both")),
        *_table("A worker", lambda each: each.where in ("worker", "both")),
        "## The queues and the build",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
        *(_row(name, "gauge", labels, text) for name, text, labels in (QUEUE_MESSAGES, QUEUE_CONSUMERS, OLDEST, DRIFT, BUILD)),
        "",
    ])  # fmt: skip


_INTRODUCTION = """\
`GET /metrics` of the gateway tells of all its processes, whichever answers. A worker tells of itself on
`DISPATCH_WORKER_METRICS_PORT`; of the queues every worker tells the same, so take the maximum. With
`Accept: application/openmetrics-text` a worker's histograms carry trace ids as exemplars.

Times are histograms in seconds. `type` is a task type, `other` for one that the process does not know; all other labels
are from closed sets, too.

**The oldest message.** RabbitMQ does not tell it of quorum queues. `robot:waiting` in Redis holds since when each task
can have been in the work queue (for a copy on a rung: when its wait ends); the claim takes it out. So the age is that of
a task which is queued and not claimed, wherever its copy really is: a copy that is stuck on a rung after its time is
seen as well. A message without a record (Redis was wiped) is not. Of the DLQ it is the age of the oldest death.
"""


def _table(title: str, wanted: Callable[[Instrument], bool]) -> list[str]:
    rows = [_row(each.name, each.kind, each.labels, each.text) for each in Instrument.every if wanted(each)]
    return [f"## {title}", "", "| metric | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows, ""]


def _row(name: str, kind: str, labels: tuple[str, ...], text: str) -> str:
    return f"| `{name}` | {kind} | {' '.join(f'`{label}`' for label in labels)} | {text} |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
