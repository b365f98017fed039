"""``celery -A celery_app dlq list | groups | show | redrive | discard | jobs | stop``: the operator's verbs on dead letters.

A redrive and a discard have their entries in the audit log: of a dead letter that is named when it is over, of what a filter
matches at begin and end.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple

import click

from dispatch.broker.publisher import Publisher
from dispatch.cli import acts, letters, mending
from dispatch.cli.mending import PayloadRefused
from dispatch.cli.output import (
    NOT_DONE,
    UNANSWERED,
    as_json_option,
    asks,
    confirm,
    counted,
    echo_json,
    echo_line,
    environment,
    operator,
    reported,
)
from dispatch.cli.tables import table
from dispatch.config.settings import Settings
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives, discard_matching, find_unauthentic, redrive_matching
from dispatch.deadletters.groups import survey_groups
from dispatch.deadletters.service import DeadLetterService, NoSuchDeadLetter, RedriveOutcome
from dispatch.deadletters.survey import counts_by_reason, find_letter
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.errors import DispatchError
from dispatch.protocol import audit
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.dead_letters import EVERY_DEAD_LETTER, DeadLetterFilter, NamedDeadLetters
from dispatch.protocol.mending import Mend
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record
from dispatch.store.audit import AuditLog
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.registry import TaskType

#: Seconds to wait for another walk through the DLQ: the workers' janitors take short ones. To show a letter: a while.
PATIENCE, SHORT_PATIENCE = 60.0, 10.0

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 2.0

#: Dead letters whose messages are read at once: each may have 256 KiB and more.
_CHUNK = 20

#: Dead letters of one redrive or discard at most, if no limit is given.
_MOST = 1_000_000

#: The keys of the group's options in click's context, and what `--as` may be.
_AS, _LINES = "dispatch.as", "dispatch.audit-line"
_NAME = re.compile(r"[A-Za-z0-9@._-]{1,64}")

_ids = click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
_type = click.option("--type", "type_", metavar="NAME", help="Only dead letters of this task type.")
_error_type = click.option("--error-type", metavar="TYPE", help="Only dead letters that died of this error.")
_fingerprint = click.option(
    "--fingerprint", metavar="HEX", help="Only those whose error has this fingerprint: a group's."
)
_all = click.option("--all", "everything", is_flag=True, help="Every dead letter in the DLQ.")
_yes = click.option("--yes", is_flag=True, help="Don't ask before acting on what a filter matches.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only count them, by reason.")

#: What one dead letter that could not be shown lacks is no failure of the command's.
_reported = reported(
    "dlq", code=lambda exc: NOT_DONE if isinstance(exc, NoSuchDeadLetter | PayloadRefused) else UNANSWERED
)


class _Dlq(NamedTuple):
    settings: Settings
    types: Mapping[str, TaskType]
    tasks: TaskStore
    service: DeadLetterService
    lock: WalkLock
    audit: AuditLog
    bulk: BulkRedrives


@contextlib.contextmanager
def _connected() -> Iterator[_Dlq]:
    settings, types, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT, share=True)  # by what a walk does side by side
    publisher = Publisher(settings.address("replay"), timeout=settings.publish_timeout, keys=settings.signing)
    tasks, records = TaskStore(redis, settings), DeadLetterRecords(redis, settings)
    log = AuditLog(redis, settings, lines=bool(click.get_current_context().meta.get(_LINES)))
    try:
        service = DeadLetterService(
            tasks,
            records,
            publisher,
            Ladders.of_types(settings.ladder, types.values()),
            sealing=settings.sealing,
            shards=settings.shards,
        )
        yield _Dlq(settings, types, tasks, service, WalkLock(redis), log, BulkRedrives(redis))
    finally:
        publisher.close()
        redis.close()


@click.group()
@click.option(
    "--as", "name", metavar="NAME", help="Who you are, for the audit log, where several people share an OS user."
)
@click.option("--audit-line", is_flag=True, help="Print each audit entry's log line on stderr, too.")
@click.pass_context
def dlq(context: click.Context, name: str | None, audit_line: bool) -> None:
    """Dead letters: what could not be done, and why."""
    if name is not None and not _NAME.fullmatch(name):
        raise click.BadParameter("a name has up to 64 letters, digits, and @ . _ -", param_hint="--as")
    context.meta[_AS] = name
    context.meta[_LINES] = audit_line


@dlq.command("groups")
@_type
@_error_type
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Groups at most.")
@as_json_option
@_reported
def list_groups(type_: str | None, error_type: str | None, limit: int, as_json: bool) -> None:
    """What the dead letters died of, the largest group first; with --json one object a line."""
    with _connected() as dlq:
        found = survey_groups(dlq.service, DeadLetterFilter(type_, error_type), shown=limit)
    for group in found.groups if as_json else []:
        echo_line(group.to_json())
    if not as_json:
        click.echo(letters.grouped(found.groups) if found.groups else "no dead letters")
    if found.not_shown:
        click.echo(f"{counted(found.not_shown, 'dead letter')} in smaller groups: --limit shows more", err=True)


@dlq.command("list")
@_type
@_error_type
@_fingerprint
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Dead letters at most.")
@click.option("--unauthentic", is_flag=True, help="What no gateway or worker of ours wrote: it has no record.")
@as_json_option
@_reported
def list_dead_letters(
    type_: str | None, error_type: str | None, fingerprint: str | None, limit: int, unauthentic: bool, as_json: bool
) -> None:
    """Dead letters, newest first; with --json one object a line."""
    wanted = DeadLetterFilter(type_, error_type, fingerprint=fingerprint)
    with _connected() as dlq:
        if unauthentic:
            _list_unauthentic(dlq, wanted, limit, as_json)
            return
        matching = dlq.service.matching(wanted)
        found = _whole(dlq.tasks, itertools.islice(matching, limit))
        if as_json:
            for record in found:  # one by one: there may be very many
                echo_line(letters.summary(record, dlq.types, dlq.settings.sealing))
            return
        records = list(found)
        more = next(matching, None) is not None
        filtered = "" if wanted == EVERY_DEAD_LETTER else " that match"
        if not records:
            click.echo(f"no dead letters{filtered}")
            return
        click.echo(letters.listed(records, dlq.types, dlq.settings.sealing))
    if more:
        click.echo(f"the newest {len(records):,} of more{filtered}: --limit shows them", err=True)


def _whole(tasks: TaskStore, records: Iterator[Record]) -> Iterator[Record]:
    """With their messages, which name the robots; one whose record has gone meanwhile is listed without."""
    while chunk := list(itertools.islice(records, _CHUNK)):
        found = tasks.wholes([record.task_id for record in chunk])
        yield from (new or old for new, old in zip(found, chunk, strict=True))


def _list_unauthentic(dlq: _Dlq, wanted: DeadLetterFilter, limit: int, as_json: bool) -> None:
    """From the DLQ itself, by a walk through it."""
    with dlq.lock.held(PATIENCE) as lock:
        found = find_unauthentic(dlq.settings.address("replay"), lock, wanted, dlq.settings.signing, limit=limit)
    entries = [letters.unauthentic(*each) for each in found]
    for entry in entries if as_json else []:
        echo_line(entry)
    if not as_json:
        click.echo(letters.unauthentic_table(entries) if entries else "no unauthentic dead letters")


@dlq.command("show")
@click.argument("task_id")
@as_json_option
@_reported
def show(task_id: str, as_json: bool) -> None:
    """One dead letter: its task, its hops, and the letter as it lies in the DLQ; as JSON where the output is no terminal."""
    with _connected() as dlq:
        record = dlq.tasks.whole(task_id)
        if record is not None and not record.is_dead_letter:
            record = dlq.service.find(task_id)  # raises, but for one that has just died
        letter, fault = None, ""
        try:
            with dlq.lock.held(SHORT_PATIENCE) as lock:
                letter = find_letter(dlq.settings.address("replay"), lock, task_id, record)
        except (DispatchError, OSError) as exc:
            fault = f"the letter itself can't be read now: {exc}"
        if record is None and letter is None:
            record = dlq.service.find(task_id)
        shown = letters.whole(task_id, record, letter, dlq.tasks.hops(task_id), dlq.types, dlq.settings.sealing)
    if fault:
        click.echo(f"dlq: {fault}", err=True)
    if as_json or not sys.stdout.isatty():
        echo_json(shown)
    else:
        click.echo(letters.page(record, shown))


@dlq.command("redrive")
@_ids
@_type
@_error_type
@_fingerprint
@_all
@click.option("--limit", type=click.IntRange(1), default=_MOST, help="Dead letters at most.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Dead letters a second; 0 is no limit.")
@click.option(
    "--payload", type=click.File("rb"), metavar="FILE", help="Of one TASK_ID: the JSON to send instead; - is stdin."
)
@click.option("--fresh", is_flag=True, help="A new effect at the other side: its idempotency key is another one.")
@_dry_run
@_yes
@as_json_option
@_reported
def redrive(
    task_ids: tuple[str, ...],
    type_: str | None,
    error_type: str | None,
    fingerprint: str | None,
    everything: bool,
    limit: int,
    rate: float,
    payload: IO[bytes] | None,
    fresh: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Redrive those that are named, or all that match. Same task id, next cycle; works also with Redis wiped."""
    wanted = _wanted(task_ids, type_, error_type, fingerprint, everything)
    if payload is not None and len(task_ids) != 1:
        raise click.UsageError("--payload is that of one dead letter: name it")
    with _connected() as dlq:
        given = mending.read(payload, dlq.settings.max_body) if payload is not None else None
        mend = mending.mender(given, dlq.types, fresh=fresh)
        if not _agreed(dlq, "redrive", wanted, limit, dry_run=dry_run, yes=yes, as_json=as_json):
            return
        bulk = BulkRedrive(wanted, limit, rate, _me())

        def on_outcome(dead_letter: Message, outcome: RedriveOutcome) -> None:
            outcomes.add(dead_letter.dead_letter_id, outcome.value)
            acts.echo_redriven(dead_letter, outcome, as_json)

        note = Mend(given, fresh=fresh).hop()
        with acts.audited(dlq.audit, _me(), acts.REDRIVE, wanted, note) as outcomes, dlq.lock.held(PATIENCE) as lock:
            broker, keys = dlq.settings.address("replay"), dlq.settings.signing
            sent = redrive_matching(broker, dlq.service, lock, bulk, keys=keys, mend=mend, on_outcome=on_outcome)
    acts.conclude(f"{sent:,} redriven", outcomes, as_json)


@dlq.command("discard")
@_ids
@_type
@_error_type
@_fingerprint
@_all
@_dry_run
@_yes
@as_json_option
@_reported
def discard(
    task_ids: tuple[str, ...],
    type_: str | None,
    error_type: str | None,
    fingerprint: str | None,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Discard dead letters for good, those that are named or all that match: their tasks stay FAIL."""
    wanted = _wanted(task_ids, type_, error_type, fingerprint, everything)

    def on_discard(dead_letter: Message) -> None:
        outcomes.add(dead_letter.dead_letter_id, acts.DISCARDED)
        acts.echo_discarded(dead_letter, as_json)

    with _connected() as dlq:
        if not _agreed(dlq, "discard", wanted, _MOST, dry_run=dry_run, yes=yes, as_json=as_json):
            return
        with acts.audited(dlq.audit, _me(), acts.DISCARD, wanted) as outcomes, dlq.lock.held(PATIENCE) as lock:
            broker, keys = dlq.settings.address("replay"), dlq.settings.signing
            gone = discard_matching(broker, dlq.service, lock, wanted, by=_me(), keys=keys, on_discard=on_discard)
    acts.conclude(f"{gone:,} discarded", outcomes, as_json)


@dlq.command("jobs")
@as_json_option
@_reported
def jobs(as_json: bool) -> None:
    """The bulk redrives that were requested over HTTP and are not done; a redrive by this command ends with Ctrl-C."""
    with _connected() as dlq:
        found = dlq.bulk.all()
    for bulk in found if as_json else []:
        click.echo(bulk.to_json())
    if not as_json:
        rows = [
            (
                each.id,
                each.filter.type or "-",
                each.filter.error_type or "-",
                each.filter.fingerprint or "-",
                str(each.limit),
                f"{each.rate:g}",
                each.by,
            )
            for each in found
        ]
        heads = ("JOB", "TYPE", "ERROR", "FINGERPRINT", "LIMIT", "RATE", "BY")
        click.echo(table(heads, rows, right={"LIMIT", "RATE"}) if rows else "no jobs")


@dlq.command("stop")
@click.argument("job_ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--all", "everything", is_flag=True, help="Every job.")
@as_json_option
@_reported
def stop(job_ids: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Stop bulk redrives: at most the dead letter in hand is still sent."""
    if bool(job_ids) == everything:
        raise click.UsageError("name the jobs: JOB_ID, or --all")
    with _connected() as dlq:
        wanted = [bulk.id for bulk in dlq.bulk.all()] if everything else list(dict.fromkeys(job_ids))
        stopped = [bulk.id for bulk in map(dlq.bulk.stop, wanted) if bulk is not None]
        for each in stopped:
            acts.record(dlq.audit, AuditEntry(_me(), audit.STOP_JOB, each, audit.OK, client=socket.gethostname()))
    for each in wanted:
        outcome = "stopped" if each in stopped else "no such job"
        if as_json:
            echo_line({"jobId": each, "outcome": outcome.replace(" ", "-")})
        else:
            click.echo(f"{each}  {outcome}")
    if not as_json:
        click.echo(f"{len(stopped)} stopped")
    if job_ids and len(stopped) < len(wanted):
        raise SystemExit(NOT_DONE)


def _wanted(
    task_ids: tuple[str, ...], type_: str | None, error_type: str | None, fingerprint: str | None, everything: bool
) -> DeadLetterFilter:
    wanted = DeadLetterFilter(type_, error_type, fingerprint=fingerprint)
    given = [name for name, is_given in (("TASK_ID", task_ids), ("FILTER", wanted != EVERY_DEAD_LETTER)) if is_given]
    if everything:
        given.append("--all")
    if len(given) != 1:
        raise click.UsageError("name the dead letters: one of TASK_ID, --type/--error-type/--fingerprint, --all")
    if task_ids:
        return NamedDeadLetters(task_ids=tuple(dict.fromkeys(task_ids)))
    return wanted


def _agreed(
    dlq: _Dlq, verb: str, wanted: DeadLetterFilter, limit: int, *, dry_run: bool, yes: bool, as_json: bool
) -> bool:
    """Whether to go on: what is named is meant, what a filter matches is counted and asked for."""
    if not dry_run and (yes or wanted.ids is not None):
        return True
    if not dry_run and not asks():
        raise click.UsageError(
            f"there is no terminal to confirm on: give --yes to {verb} all that match, or --dry-run to count them"
        )
    address, keys = dlq.settings.address("replay"), dlq.settings.signing
    counts = counts_by_reason(address, dlq.service, dlq.lock, wanted, keys, patience=PATIENCE, most=limit)
    total, reasons = counts.total(), ", ".join(f"{number:,} {reason}" for reason, number in counts.most_common())
    if dry_run and as_json:
        echo_line({"verb": verb, "dryRun": True, "deadLetters": total, "reasons": dict(counts.most_common())})
    elif dry_run:
        many = f"{counted(total, 'dead letter')} would be {'redriven' if verb == 'redrive' else 'discarded'}"
        click.echo(f"{many}: {reasons}" if reasons else many)
    elif not total:
        click.echo("no dead letters match")
    else:
        confirm(f"{counted(total, 'dead letter')}: {reasons}. {verb.capitalize()}?")
        return True
    return False


def _me() -> str:
    return operator(click.get_current_context().meta.get(_AS))
