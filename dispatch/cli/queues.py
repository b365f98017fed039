"""``celery -A celery_app queues``: the queues as a table; as ``GET /v1/queues``, and how old the oldest task is."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence

import click

from dispatch.broker import queue_stats
from dispatch.broker.queue_stats import QueueView
from dispatch.cli.output import INTERRUPTED, UNANSWERED, as_json_option, environment, reported
from dispatch.cli.tables import age, table, terminal_width
from dispatch.config.groups import RedisSettings
from dispatch.errors import StoreError
from dispatch.protocol import names
from dispatch.protocol.ids import timestamp
from dispatch.store.oldest import Oldest
from dispatch.store.scripts import RedisHandle

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 1.0

#: Clears the terminal and goes to its upper left corner.
_CLEAR = "\x1b[2J\x1b[H"

_HEADS = (
    "QUEUE",
    "ROLE",
    "READY",
    "UNACKED",
    "TOTAL",
    "OLDEST",
    "CONSUMERS",
    "IN/S",
    "OUT/S",
    "ACK/S",
    "TTL",
    "LIMIT",
    "GUARD",
    "POLICY",
    "DRIFT",
)

#: The columns that are numbers.
_NUMBERS = frozenset(_HEADS) - {"QUEUE", "ROLE", "POLICY", "DRIFT"}

#: Columns that a narrow terminal lacks, the first one first.
_LEFT_OUT = ("POLICY", "ROLE", "LIMIT", "ACK/S", "TTL", "OUT/S", "IN/S", "DRIFT", "TOTAL")


@click.command("queues")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds, with --watch.")
@click.option("--count", type=click.IntRange(1), help="How often, with --watch; for ever by default.")
@click.option("--levels", is_flag=True, help="A line for each delay level; --json always has them.")
@as_json_option
def queues(*, watch: bool, interval: float, count: int | None, levels: bool, as_json: bool) -> None:
    """Ready, unacked, age, consumers, rates, limits and drift of every queue; some seconds old, as RabbitMQ counts."""
    if not watch:
        if count is not None:
            raise click.UsageError("--count goes with --watch")
        _show(as_json=as_json, levels=levels)
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        for number in itertools.count() if count is None else range(count):
            if number:
                time.sleep(interval)
            try:
                _show(as_json=as_json, levels=levels, clear=not as_json)
            except SystemExit as exc:
                if exc.code == INTERRUPTED:
                    return
                if exc.code != UNANSWERED:  # the output has no reader any more
                    raise
                # An outage was reported; it may be over at the next read.


@reported("queues")
def _show(*, as_json: bool, levels: bool, clear: bool = False) -> None:
    settings, _, wanted = environment()
    views = queue_stats.snapshot(wanted, settings, depth_limits=settings.depth_limits)
    ages = _ages(settings)
    shown = [{**view.to_json(), "oldestAge": ages.get(view.name)} for view in views]
    text = json.dumps(shown) if as_json else render(views, ages, levels=levels)
    click.echo((_CLEAR if clear else "") + text)


def _ages(settings: RedisSettings) -> Mapping[str, float]:
    """Of the work queue and the DLQ, from the records; without Redis the queues are shown all the same."""
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    try:
        return Oldest(redis).ages()
    except StoreError as exc:
        click.echo(f"queues: the ages can't be read: {exc}", err=True)
        return {}
    finally:
        redis.close()


def render(views: Sequence[QueueView], ages: Mapping[str, float], *, levels: bool = False) -> str:
    """The queues as text, one a line, and what differs from the broker map below.

    Args:
        views: the queues.
        ages: seconds that the oldest task waits, by queue.
        levels: a line for each delay level, where one has them all.
    """
    if not views:
        return "no queues: `celery -A celery_app topology apply` declares them"
    drift = [f"{view.name}: {sentence}" for view in views for sentence in view.drift]
    rows = [_row(view, ages.get(view.name)) for view in (views if levels else _folded(views))]
    shown = table(_HEADS, rows, right=_NUMBERS, leave_out=_LEFT_OUT, width=terminal_width())
    return "\n".join([shown, *([""] if drift else []), *drift, _as_of(views)])


def _folded(views: Sequence[QueueView]) -> list[QueueView]:
    """The delay levels as one queue in the first one's place; without rates, which count a message at each level."""
    levels = [view for view in views if view.role == "delay"]
    shown = {view.name: view for view in views if view not in levels[1:]}
    if levels:
        shown[levels[0].name] = dataclasses.replace(
            levels[0],
            name=names.DELAY_LEVELS,
            ready=_sum(level.ready for level in levels),
            unacked=_sum(level.unacked for level in levels),
            total=_sum(level.total for level in levels),
            consumers=_sum(level.consumers for level in levels),
            publish_rate=None,
            deliver_rate=None,
            ack_rate=None,
            ttl=None,
            drift=tuple(sentence for level in levels for sentence in level.drift),
        )
    return list(shown.values())


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _as_of(views: Sequence[QueueView]) -> str:
    return f"as of {timestamp(views[0].as_of)}"


def _row(queue: QueueView, oldest: float | None) -> tuple[str, ...]:
    counts = (queue.ready, queue.unacked, queue.total)
    rates = (queue.publish_rate, queue.deliver_rate, queue.ack_rate)
    return (
        queue.name,
        queue.role,
        *("-" if count is None else str(count) for count in counts),
        age(oldest) if oldest else "-",
        "-" if queue.consumers is None else str(queue.consumers),
        *("-" if rate is None else f"{rate:.1f}" for rate in rates),
        "-" if queue.ttl is None else age(queue.ttl),
        "-" if queue.max_length is None else str(queue.max_length),
        "-" if queue.guard is None else f"{queue.guard['limit']}{' 429!' if queue.guard['refusing'] else ''}",
        queue.policy or "-",
        str(len(queue.drift)) if queue.drift else "-",
    )
