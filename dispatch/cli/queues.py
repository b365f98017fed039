"""``celery -A celery_app queues``: the queues as a table; the same as ``GET /v1/queues``."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence

import click

from dispatch.broker import queue_stats
from dispatch.broker.queue_stats import QueueView
from dispatch.cli.output import as_json_option, environment, reported, table
from dispatch.protocol.ids import timestamp

#: Clears the terminal and goes to its upper left corner.
_CLEAR = "\x1b[2J\x1b[H"

_HEADS = (
    "QUEUE",
    "ROLE",
    "READY",
    "UNACKED",
    "TOTAL",
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


@click.command("queues")
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds, with --watch.")
@click.option("--count", type=click.IntRange(1), help="How often, with --watch; for ever by default.")
@as_json_option
def queues(*, watch: bool, interval: float, count: int | None, as_json: bool) -> None:
    """Ready, unacked, consumers, rates, limits and drift of every queue; some seconds old, as RabbitMQ counts."""
    if not watch:
        if count is not None:
            raise click.UsageError("--count goes with --watch")
        _show(as_json=as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        for number in itertools.count() if count is None else range(count):
            if number:
                time.sleep(interval)
            with contextlib.suppress(SystemExit):  # an outage was reported; it may be over at the next read
                _show(as_json=as_json, clear=not as_json)


@reported("queues")
def _show(*, as_json: bool, clear: bool = False) -> None:
    settings, _, wanted = environment()
    views = queue_stats.snapshot(wanted, settings, depth_limit=settings.queue_depth_limit)
    text = json.dumps([view.to_json() for view in views]) if as_json else render(views)
    click.echo((_CLEAR if clear else "") + text)


def render(views: Sequence[QueueView]) -> str:
    """The queues as text, one a line, and what differs from the broker map below.

    Args:
        views: the queues.
    """
    drift = [f"{view.name}: {sentence}" for view in views for sentence in view.drift]
    as_of = [f"as of {timestamp(views[0].as_of)}"] if views else []
    return "\n".join([table(_HEADS, map(_row, views), right=_NUMBERS), *([""] if drift else []), *drift, *as_of])


def _row(queue: QueueView) -> tuple[str, ...]:
    counts = (queue.ready, queue.unacked, queue.total, queue.consumers)
    rates = (queue.publish_rate, queue.deliver_rate, queue.ack_rate)
    return (
        queue.name,
        queue.role,
        *("-" if count is None else str(count) for count in counts),
        *("-" if rate is None else f"{rate:.1f}" for rate in rates),
        "-" if queue.ttl is None else f"{queue.ttl:g}s",
        "-" if queue.max_length is None else str(queue.max_length),
        "-" if queue.guard is None else f"{queue.guard['limit']}{' 429!' if queue.guard['refusing'] else ''}",
        queue.policy or "-",
        str(len(queue.drift)) if queue.drift else "-",
    )
