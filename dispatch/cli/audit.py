"""``celery -A celery_app audit``: what operators did, newest first.

It reads Redis itself, so it works while no gateway runs.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import click

from dispatch.cli.output import as_json_option, echo_line, environment, reported
from dispatch.cli.tables import table, terminal_width
from dispatch.protocol.audit import Audited
from dispatch.store.audit import AuditLog
from dispatch.store.scripts import RedisHandle

#: Seconds for each Redis answer, and entries that are asked for at once.
_REDIS_TIMEOUT, _PAGE = 2.0, 200

_HEADS = ("AT", "PRINCIPAL", "VERB", "PHASE", "RESULT", "TARGET", "DETAILS")


@click.command("audit")
@click.option("--verb", metavar="NAME", help="Only this one: an operationId, e.g. startJob.")
@click.option("--principal", metavar="ID", help="Only this one's.")
@click.option("--limit", type=click.IntRange(1, 50_000), default=50, show_default=True, help="Entries at most.")
@as_json_option
@reported("audit")
def audit(verb: str | None, principal: str | None, limit: int, as_json: bool) -> None:
    """What operators did, newest first."""
    with _connected() as log:
        found = list(_entries(log, verb, principal, limit))
    for one in found if as_json else []:
        echo_line(one.to_json())
    if not as_json:
        rows = [_row(one) for one in found]
        click.echo(table(_HEADS, rows, cut="DETAILS", width=terminal_width()) if rows else "no entries")


@contextlib.contextmanager
def _connected() -> Iterator[AuditLog]:
    settings, _, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    try:
        yield AuditLog(redis, settings, lines=False)
    finally:
        redis.close()


def _entries(log: AuditLog, verb: str | None, principal: str | None, limit: int) -> Iterator[Audited]:
    """Entries of as many pages as it takes: one of a rare verb may be empty."""
    cursor: str | None = None
    left = limit
    while left:
        page = log.page(verb=verb, principal=principal, limit=min(left, _PAGE), cursor=cursor)
        yield from page.items
        left -= len(page.items)
        cursor = page.next
        if cursor is None:
            return


def _row(one: Audited) -> tuple[str, ...]:
    shown = one.to_json()
    details = " ".join(f"{name}={_word(value)}" for name, value in shown["details"].items())
    return (
        shown["at"],
        shown["principal"],
        shown["verb"],
        shown["phase"] or "-",
        shown["result"],
        shown["target"],
        details or "-",
    )


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
