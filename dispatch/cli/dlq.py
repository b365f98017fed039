"""``celery -A celery_app dlq list | show | redrive | discard``: the operator's verbs on dead letters."""

from __future__ import annotations

import contextlib
import functools
import getpass
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import click

from dispatch.broker.publisher import Publisher
from dispatch.config import settings as configuration
from dispatch.deadletters.service import BulkRedriveJob, DeadLetterService, RedriveOutcome, without_secrets
from dispatch.deadletters.walk import discard_all, redrive_all
from dispatch.errors import DispatchError
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import LAST_ERROR_TYPE, Message
from dispatch.protocol.record import Record
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.registry import registry

P = ParamSpec("P")

#: Seconds to wait for another walk through the DLQ: the workers' janitors take short ones.
PATIENCE = 60.0

_type = click.option("--type", "type_", metavar="NAME", help="Only letters of this task type.")
_error_type = click.option("--error-type", metavar="TYPE", help="Only letters that died of this error.")
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")
_all = click.option("--all", "everything", is_flag=True, help="Every letter in the DLQ.")
_yes = click.option("--yes", is_flag=True, help="Don't ask.")


def _reported(command: Callable[P, None]) -> Callable[P, None]:
    """An expected error is one clear line and exit code 2; letters that were not sent on are still there."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (DispatchError, OSError) as exc:
            click.echo(f"dlq: {exc}", err=True)
            raise SystemExit(2) from exc

    return run


@contextlib.contextmanager
def _desk() -> Iterator[tuple[configuration.Settings, TaskStore, DeadLetterService]]:
    settings = configuration.load()
    store = TaskStore(settings, timeout=2.0)
    publisher = Publisher(settings.broker("replay"), timeout=settings.publish_timeout)
    try:
        yield settings, store, DeadLetterService(settings, store, publisher)
    finally:
        publisher.close()
        store.close()


@click.group()
def dlq() -> None:
    """Dead letters: what could not be done, and why."""


@dlq.command("list")
@_type
@_error_type
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Letters at most.")
@_as_json
@_reported
def list_letters(type_: str | None, error_type: str | None, limit: int, as_json: bool) -> None:
    """Dead letters, newest first."""
    with _desk() as (_, _, letters):
        found = itertools.islice(letters.matching(DeadLetterFilter(type_, error_type)), limit)
        if as_json:
            for record in found:  # one by one: there may be very many
                click.echo(json.dumps(_summary(record)))
            return
        rows = [_row(record) for record in found]
    if not rows:
        click.echo("no dead letters")
        return
    heads = ("TASK", "TYPE", "CYCLE", "ATTEMPTS", "REASON", "ERROR", "DIED")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@dlq.command("show")
@click.argument("task_id")
@_reported
def show_letter(task_id: str) -> None:
    """One dead letter with its message and its hops, as JSON."""
    with _desk() as (_, store, letters):
        record = letters.find(task_id)
        hops = store.hops(task_id)
    body = _shown_body(record.message) if record.message else None
    headers = dict(record.message.headers) if record.message else {}
    shown = {**record.to_json(), "deadReason": record.dead_reason, "message": {"headers": headers, "body": body}}
    click.echo(json.dumps({**shown, "hops": hops}, indent=2))


def _shown_body(message: Message) -> str:
    """The body as text, without the secrets of its payload."""
    text = message.body.decode(errors="replace")
    try:
        whole = json.loads(text)
        shown = without_secrets(whole, registry.get(message.type))
    except (ValueError, LookupError, TypeError):
        return text
    return text if shown is whole else json.dumps(shown)


@dlq.command("redrive")
@click.argument("task_id", required=False)
@_type
@_error_type
@_all
@click.option("--limit", type=click.IntRange(1), default=1_000_000, help="Letters at most.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Letters a second; 0 is as fast as it goes.")
@click.option("--dry-run", is_flag=True, help="Only say how many letters are meant.")
@_reported
def redrive(
    task_id: str | None,
    type_: str | None,
    error_type: str | None,
    everything: bool,
    limit: int,
    rate: float,
    dry_run: bool,
) -> None:
    """Send letters again: one TASK_ID, or all that match. Same task id, next cycle; works also with Redis wiped."""
    wanted = _wanted(task_id, type_, error_type, everything)
    with _desk() as (settings, _, letters):
        if dry_run:
            click.echo(f"{letters.count(wanted, most=limit)} letters would be redriven")
            return
        with letters.turn(PATIENCE) as turn:
            sent = redrive_all(settings, letters, turn, BulkRedriveJob(wanted, limit, rate, _me()), shown=_redriven)
    click.echo(f"{sent} redriven")
    if not sent and task_id:
        raise SystemExit(1)


@dlq.command("discard")
@click.argument("task_id", required=False)
@_type
@_error_type
@_all
@_yes
@_reported
def discard(task_id: str | None, type_: str | None, error_type: str | None, everything: bool, yes: bool) -> None:
    """Give letters up for good: their tasks stay FAIL."""
    wanted = _wanted(task_id, type_, error_type, everything)
    if not yes and not task_id:
        click.confirm("Discard every letter that matches?", abort=True)
    with _desk() as (settings, _, letters), letters.turn(PATIENCE) as turn:
        gone = discard_all(settings, letters, turn, wanted, by=_me(), shown=_discarded)
    click.echo(f"{gone} discarded")
    if not gone and task_id:
        raise SystemExit(1)


def _wanted(task_id: str | None, type_: str | None, error_type: str | None, everything: bool) -> DeadLetterFilter:
    given = [name for name, value in (("TASK_ID", task_id), ("--type/--error-type", type_ or error_type)) if value]
    if everything:
        given.append("--all")
    if len(given) != 1:
        raise click.UsageError("say which letters: one of TASK_ID, --type/--error-type, --all")
    return DeadLetterFilter(type_, error_type, task_id)


def _me() -> str:
    return f"cli:{getpass.getuser()}"


def _row(record: Record) -> tuple[str, ...]:
    error = record.error.type if record.error else "-"
    died = timestamp(record.finished_at) or "-"
    attempts = f"{record.attempt}/{record.max_attempts}"
    return record.task_id, record.type or "-", str(record.cycle), attempts, record.dead_reason or "-", error, died


def _summary(record: Record) -> dict[str, Any]:
    return {**record.to_json(), "deadReason": record.dead_reason}


_SAID = {
    RedriveOutcome.STALE: "stale, removed",
    RedriveOutcome.LIVE: "kept: a worker runs it",
    RedriveOutcome.TOO_LARGE: "kept: too large, discard it",
}


def _redriven(letter: Message, outcome: RedriveOutcome) -> None:
    click.echo(f"{letter.letter_id}  {_SAID.get(outcome, f'sent, cycle {letter.cycle + 1}')}")


def _discarded(letter: Message) -> None:
    click.echo(f"{letter.letter_id}  {letter.type or '-'}  {letter.text(LAST_ERROR_TYPE) or '-'}")
