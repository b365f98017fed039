"""``celery -A celery_app dlq list | show | redrive | discard``: the operator's verbs on dead letters."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from dispatch.broker.publisher import Publisher
from dispatch.cli.output import as_json_option, echo_json, environment, reported, table
from dispatch.config.settings import Settings
from dispatch.deadletters.bulk import BulkRedrive, discard_matching, redrive_matching
from dispatch.deadletters.service import DeadLetterService, RedriveOutcome, without_secrets
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import LAST_ERROR_TYPE, Message
from dispatch.protocol.record import Record
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType

#: Seconds to wait for another walk through the DLQ: the workers' janitors take short ones.
PATIENCE = 60.0

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 2.0

_type = click.option("--type", "type_", metavar="NAME", help="Only dead letters of this task type.")
_error_type = click.option("--error-type", metavar="TYPE", help="Only dead letters that died of this error.")
_all = click.option("--all", "everything", is_flag=True, help="Every dead letter in the DLQ.")
_yes = click.option("--yes", is_flag=True, help="Don't ask.")


class _Dlq(NamedTuple):
    settings: Settings
    types: Mapping[str, TaskType]
    tasks: TaskStore
    service: DeadLetterService
    lock: WalkLock


@contextlib.contextmanager
def _connected() -> Iterator[_Dlq]:
    settings, types, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    publisher = Publisher(settings.address("replay"), timeout=settings.publish_timeout)
    tasks, records = TaskStore(redis, settings), DeadLetterRecords(redis, settings)
    ladders = Ladders.of_types(settings.ladder, types.values())
    try:
        service = DeadLetterService(tasks, records, publisher, ladders)
        yield _Dlq(settings, types, tasks, service, WalkLock(redis))
    finally:
        publisher.close()
        redis.close()


@click.group()
def dlq() -> None:
    """Dead letters: what could not be done, and why."""


@dlq.command("list")
@_type
@_error_type
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Dead letters at most.")
@as_json_option
@reported("dlq")
def list_dead_letters(type_: str | None, error_type: str | None, limit: int, as_json: bool) -> None:
    """Dead letters, newest first; with --json one object a line."""
    with _connected() as dlq:
        found = itertools.islice(dlq.service.matching(DeadLetterFilter(type_, error_type)), limit)
        if as_json:
            for record in found:  # one by one: there may be very many
                click.echo(json.dumps(_summary(record)))
            return
        rows = [_row(record) for record in found]
    heads = ("TASK", "TYPE", "CYCLE", "ATTEMPTS", "REASON", "ERROR", "DIED")
    click.echo(table(heads, rows) if rows else "no dead letters")


@dlq.command("show")
@click.argument("task_id")
@reported("dlq")
def show(task_id: str) -> None:
    """One dead letter with its message and its hops, as JSON."""
    with _connected() as dlq:
        record = dlq.service.find(task_id)
        hops = dlq.tasks.hops(task_id)
        body = _shown_body(record.message, dlq.types) if record.message else None
    message = {"headers": dict(record.message.headers) if record.message else {}, "body": body}
    echo_json({**_summary(record), "message": message, "hops": hops})


def _shown_body(message: Message, types: Mapping[str, TaskType]) -> str:
    """The body as text, without the secrets of its payload."""
    text = message.body.decode(errors="replace")
    try:
        whole = json.loads(text)
        shown = without_secrets(whole, types.get(message.type))
    except (ValueError, LookupError, TypeError):
        return text
    return text if shown is whole else json.dumps(shown)


@dlq.command("redrive")
@click.argument("task_id", required=False)
@_type
@_error_type
@_all
@click.option("--limit", type=click.IntRange(1), default=1_000_000, help="Dead letters at most.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Dead letters a second; 0 is no limit.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@reported("dlq")
def redrive(
    task_id: str | None,
    type_: str | None,
    error_type: str | None,
    everything: bool,
    limit: int,
    rate: float,
    dry_run: bool,
) -> None:
    """Redrive one TASK_ID, or all that match. Same task id, next cycle; works also with Redis wiped."""
    wanted = _wanted(task_id, type_, error_type, everything)
    with _connected() as dlq:
        if dry_run:
            click.echo(f"{dlq.service.count(wanted, most=limit)} dead letters would be redriven")
            return
        bulk = BulkRedrive(wanted, limit, rate, _me())
        failed = 0

        def on_outcome(dead_letter: Message, outcome: RedriveOutcome) -> None:
            nonlocal failed
            failed += outcome is RedriveOutcome.FAILED
            _echo_redriven(dead_letter, outcome)

        with dlq.lock.held(PATIENCE) as lock:
            sent = redrive_matching(dlq.settings.address("replay"), dlq.service, lock, bulk, on_outcome=on_outcome)
    click.echo(f"{sent} redriven")
    if failed or (not sent and task_id):
        raise SystemExit(1)


@dlq.command("discard")
@click.argument("task_id", required=False)
@_type
@_error_type
@_all
@_yes
@reported("dlq")
def discard(task_id: str | None, type_: str | None, error_type: str | None, everything: bool, yes: bool) -> None:
    """Discard dead letters for good: their tasks stay FAIL."""
    wanted = _wanted(task_id, type_, error_type, everything)
    if not yes and not task_id:
        click.confirm("Discard every dead letter that matches?", abort=True)
    with _connected() as dlq, dlq.lock.held(PATIENCE) as lock:
        broker = dlq.settings.address("replay")
        gone = discard_matching(broker, dlq.service, lock, wanted, by=_me(), on_discard=_echo_discarded)
    click.echo(f"{gone} discarded")
    if not gone and task_id:
        raise SystemExit(1)


def _wanted(task_id: str | None, type_: str | None, error_type: str | None, everything: bool) -> DeadLetterFilter:
    given = [name for name, value in (("TASK_ID", task_id), ("--type/--error-type", type_ or error_type)) if value]
    if everything:
        given.append("--all")
    if len(given) != 1:
        raise click.UsageError("name the dead letters: one of TASK_ID, --type/--error-type, --all")
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


_KEPT = {
    RedriveOutcome.STALE: "stale, removed",
    RedriveOutcome.LIVE: "kept: a worker runs it",
    RedriveOutcome.TOO_LARGE: "kept: too large, discard it",
    RedriveOutcome.FAILED: "kept: it can't be published",
}


def _echo_redriven(dead_letter: Message, outcome: RedriveOutcome) -> None:
    text = _KEPT.get(outcome, f"sent, cycle {dead_letter.cycle + 1}")
    click.echo(f"{dead_letter.dead_letter_id}  {text}")


def _echo_discarded(dead_letter: Message) -> None:
    error = dead_letter.text(LAST_ERROR_TYPE) or "-"
    click.echo(f"{dead_letter.dead_letter_id}  {dead_letter.type or '-'}  {error}")
