"""``celery -A celery_app queues``: what waits where, as a table; the same as ``GET /v1/queues``."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence

import click

from dispatch.broker.queue_stats import QueueView, snapshot
from dispatch.config import settings as configuration
from dispatch.errors import DispatchError
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

#: The columns that are words.
_LEFT = frozenset({"QUEUE", "ROLE", "POLICY", "DRIFT"})


@click.command("queues")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds, with --watch.")
@click.option("--count", type=click.IntRange(1), help="Looks, with --watch; for ever by default.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def queues(*, watch: bool, interval: float, count: int | None, as_json: bool) -> None:
    """Ready, unacked, consumers, rates, limits and drift of every queue; some seconds old, as RabbitMQ counts."""
    if not watch:
        if count is not None:
            raise click.UsageError("--count goes with --watch")
        _look(as_json=as_json)
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        for number in itertools.count() if count is None else range(count):
            if number:
                time.sleep(interval)
            with contextlib.suppress(SystemExit):  # an outage has been told; the next look may be after it
                _look(as_json=as_json, clear=not as_json)


def _look(*, as_json: bool, clear: bool = False) -> None:
    try:
        found = snapshot(configuration.load())
    except DispatchError as exc:
        click.echo(f"queues: {exc}", err=True)
        raise SystemExit(2) from exc
    text = json.dumps([queue.to_json() for queue in found]) if as_json else table(found)
    click.echo((_CLEAR if clear else "") + text)


def table(found: Sequence[QueueView]) -> str:
    """The queues as text, one a line, and what differs from the broker map below.

    Args:
        found: the queues.
    """
    rows = [_HEADS, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(map(_cell, _HEADS, row, widths)).rstrip() for row in rows]
    drift = [f"{queue.name}: {sentence}" for queue in found for sentence in queue.drift]
    seen = [f"as of {timestamp(found[0].as_of)}"] if found else []
    return "\n".join([*lines, *([""] if drift else []), *drift, *seen])


def _cell(head: str, text: str, width: int) -> str:
    return text.ljust(width) if head in _LEFT else text.rjust(width)


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
