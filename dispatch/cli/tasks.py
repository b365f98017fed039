"""``celery -A celery_app tasks list | show | events | stats | submit | pause | resume | pauses | cancel | retry-now``.

All but ``submit`` read Redis, of all principals and also while no gateway runs. A submission goes to the gateway, which alone
knows whether a task may be accepted now.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import click

from dispatch.cli import acts, task_batches, task_control, task_pages, task_pauses, task_submission
from dispatch.cli.output import (
    NOT_DONE,
    UNANSWERED,
    as_json_option,
    echo_json,
    echo_line,
    environment,
    operator,
    reported,
)
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol import audit, labels, moments, request_ids
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.record import Record, State, Status
from dispatch.store.audit import AuditLog
from dispatch.store.scripts import RedisHandle
from dispatch.store.task_counts import TaskCounter
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 2.0

_AGE = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class NoSuchTask(DispatchError):
    """There is no record of the task: look at the id; the record may have expired, or Redis have lost it."""


_reported = reported(
    "tasks", code=lambda exc: NOT_DONE if isinstance(exc, NoSuchTask | task_submission.TaskNotAccepted) else UNANSWERED
)


class _Tasks(NamedTuple):
    settings: Settings
    types: Mapping[str, TaskType]
    store: TaskStore
    redis: RedisHandle


@contextlib.contextmanager
def _connected() -> Iterator[_Tasks]:
    settings, types, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    try:
        yield _Tasks(settings, types, TaskStore(redis, settings), redis)
    finally:
        redis.close()


class _Label(click.ParamType[tuple[str, str]]):
    """A label of a filter or of a submission."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        try:
            return labels.pair(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class _Matching(click.ParamType[str]):
    """A text that a header can have."""

    def __init__(self, pattern: str, why: str) -> None:
        self.name = "text"
        self._pattern, self._why = re.compile(pattern), why

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._pattern.fullmatch(value):
            self.fail(self._why, param, ctx)
        return str(value)


_REQUEST_ID = _Matching(request_ids.PATTERN, "a request id has 1-128 letters, digits and . _ ~ -")
_IDEMPOTENCY_KEY = _Matching(r"[!-~]{1,255}", "an Idempotency-Key has 1-255 visible ASCII characters")


class _Time(click.ParamType[int]):
    """A time, or an age."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if age := _AGE.fullmatch(value):
            return int((time.time() - int(age[1]) * _UNITS[age[2]]) * 1_000)
        try:
            return moments.millis(value)
        except ValueError:
            self.fail("30s, 10m, 2h, 1d ago, or an RFC 3339 time: 2026-11-24T02:36:00Z", param, ctx)


_labels = click.option("--label", "pairs", type=_Label(), multiple=True, help="Only with this label; may be repeated.")
_principal = click.option("--principal", metavar="ID", help="Only of this principal; of all by default.")


@click.group()
def tasks() -> None:
    """Tasks: find them, look at one, count them, submit one, pause and resume them."""


tasks.add_command(task_pauses.pause)
tasks.add_command(task_pauses.resume)
tasks.add_command(task_pauses.pauses)
tasks.add_command(task_pauses.keys)
tasks.add_command(task_control.cancel)
tasks.add_command(task_control.retry_now)


@tasks.command("list")
@_labels
@click.option("--request-id", type=_REQUEST_ID, metavar="ID", help="Only those submitted with this X-Request-Id.")
@click.option("--type", "type_", metavar="NAME", help="Only of this task type.")
@click.option("--status", type=click.Choice([each.value for each in Status]), help="Only with this status.")
@click.option("--state", type=click.Choice([each.value for each in State]), help="Only in this state.")
@click.option("--error-type", metavar="TYPE", help="Only those whose last failed attempt had this error.")
@click.option("--since", type=_Time(), help="Only accepted since: 10m, 2h, 1d ago, or an RFC 3339 time.")
@click.option("--until", type=_Time(), help="Only accepted before.")
@_principal
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Tasks at most.")
@as_json_option
@_reported
def list_tasks(
    pairs: tuple[tuple[str, str], ...],
    request_id: str | None,
    type_: str | None,
    status: str | None,
    state: str | None,
    error_type: str | None,
    since: int | None,
    until: int | None,
    principal: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Tasks, newest first, that match all that is given; with --json one object a line."""
    chosen = dict(pairs)
    if len(chosen) < len(set(pairs)):
        raise click.BadParameter("a task has one value of a label", param_hint="--label")
    wanted = {
        "principal": principal, "type": type_, "status": status, "state": state, "error_type": error_type,
        "request_id": request_id, "labels": chosen, "since": since, "until": until,
    }  # fmt: skip
    with _connected() as connected:
        matching = _matching(connected.store, wanted)
        found = itertools.islice(matching, limit)
        if as_json:
            for record in found:  # one by one: there may be very many
                echo_line(task_pages.summary(record))
            return
        records = list(found)
        more = next(matching, None) is not None
    filtered = " that match" if any(value for value in wanted.values()) else ""
    click.echo(task_pages.listed(records) if records else f"no tasks{filtered}")
    if more:
        click.echo(f"the newest {len(records):,} of more{filtered}: --limit shows them", err=True)


def _matching(store: TaskStore, wanted: Mapping[str, Any]) -> Iterator[Record]:
    """Every task that matches, a page at a time."""
    cursor = None
    while True:
        page = store.list(limit=200, cursor=cursor, **wanted)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


@tasks.command("show")
@click.argument("task_id")
@click.option("--payload", "with_payload", is_flag=True, help="With its payload, secrets masked; the audit log has it.")
@click.option("--as", "name", metavar="NAME", help="Who you are, for the audit log.")
@as_json_option
@_reported
def show(task_id: str, with_payload: bool, name: str | None, as_json: bool) -> None:
    """One task with its hops; as JSON where the output is no terminal."""
    with _connected() as connected:
        record = _found(connected.store, task_id)
        shown = {**task_pages.summary(record), "hops": connected.store.hops(task_id)}
        if with_payload:
            shown |= _payload(connected, record, name)
    if as_json or not sys.stdout.isatty():
        echo_json(shown)
    else:
        click.echo(task_pages.page(record, shown))


def _found(store: TaskStore, task_id: str) -> Record:
    record = store.whole(task_id) if is_task_id(task_id) else None
    if record is None:
        raise NoSuchTask(f"there is no record of task {task_id}: it has expired, or never was")
    return record


def _payload(connected: _Tasks, record: Record, name: str | None) -> dict[str, Any]:
    """The payload and its masked places; both null when it has left the record."""
    if record.message is None:
        return {"payload": None, "masked": None}
    known, sealing = connected.types.get(record.type), connected.settings.sealing
    shown = masking.shown_payload(record.message, known, sealing)
    entry = AuditEntry(
        operator(name), audit.READ_PAYLOAD, record.task_id, audit.OK, client=socket.gethostname(),
        details={"principal": record.principal},
    )  # fmt: skip
    acts.record(AuditLog(connected.redis, connected.settings, lines=False), entry)
    return {"payload": shown.value, "masked": shown.places}


@tasks.command("events")
@click.argument("task_id")
@as_json_option
@_reported
def events(task_id: str, as_json: bool) -> None:
    """The hops of one task, oldest first; with --json one object a line."""
    with _connected() as connected:
        _found(connected.store, task_id)
        hops = connected.store.hops(task_id)
    for hop in hops if as_json else []:
        echo_line(hop)
    if not as_json:
        click.echo(task_pages.hop_table(hops))


@tasks.command("stats")
@_principal
@as_json_option
@_reported
def stats(principal: str | None, as_json: bool) -> None:
    """How many tasks there are, by type and state, and dead letters by error."""
    with _connected() as connected:
        counts = TaskCounter(connected.redis, connected.settings).counts(principal)
    if as_json:
        echo_json({**counts.to_json(), "principal": principal})
    else:
        click.echo(task_pages.counts(counts))


@tasks.command("submit")
@click.argument("type_", metavar="[TYPE]", required=False)
@click.argument("payload", default="{}")
@_labels
@click.option(
    "--batch", type=click.File(encoding="utf-8"), help="Submit a file, or - : a body of POST /v1/tasks on each line."
)
@click.option(
    "--idempotency-key",
    type=_IDEMPOTENCY_KEY,
    metavar="KEY",
    help="Makes a repeated command safe; a new one by default. In a batch, what the lines' keys begin with.",
)
@click.option("--request-id", type=_REQUEST_ID, metavar="ID", help="The task's X-Request-Id.")
@click.option("--wait", type=click.IntRange(0), default=0, help="Seconds to wait for the end; 0: not at all.")
@click.option("--url", envvar="DISPATCH_HTTP_URL", metavar="URL", help="The gateway's; DISPATCH_HTTP_URL by default.")
@click.option("--key-file", type=click.File(), help="Has the API key; by default the variable KEY, if any.")
@as_json_option
@_reported
def submit(
    type_: str | None,
    payload: str,
    pairs: tuple[tuple[str, str], ...],
    batch: IO[str] | None,
    idempotency_key: str | None,
    request_id: str | None,
    wait: int,
    url: str | None,
    key_file: Any,
    as_json: bool,
) -> None:
    """Submit a task to the gateway, or many. PAYLOAD is a JSON object, or - for standard input."""
    environment()  # takes over the address of a running stack
    if not url:
        raise click.UsageError("name the gateway: --url, or DISPATCH_HTTP_URL")
    if (type_ is None) == (batch is None) or (batch is not None and (pairs or wait or request_id)):
        raise click.UsageError("give a TYPE, with its options, or --batch FILE, whose lines have theirs")
    if batch is not None:
        many = task_submission.GatewayClient(url, task_submission.api_key(key_file))
        task_batches.submit(many, batch, keys=idempotency_key or uuid.uuid4().hex, as_json=as_json)
        return
    body = {"type": type_, "payload": _object(payload), **({"options": {"labels": dict(pairs)}} if pairs else {})}
    client = task_submission.GatewayClient(url, task_submission.api_key(key_file))
    task = client.submit(body, idempotency_key=idempotency_key, request_id=request_id)
    if wait:
        task = client.wait(task, wait)
    if as_json:
        echo_json(task)
    else:
        click.echo(f"{task['taskId']}  {task['status']}  {task['state']}")
    if wait and task["status"] != Status.SUCCESS:
        raise SystemExit(NOT_DONE)


def _object(text: str) -> Any:
    try:
        value = json.loads(sys.stdin.read() if text == "-" else text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # NaN, or bytes of the shell that are no UTF-8
    except ValueError as exc:
        raise click.BadParameter(f"it is no JSON: {exc}", param_hint="PAYLOAD") from None
    if not isinstance(value, dict):
        raise click.BadParameter('it is no object, as {"message": "hi"}', param_hint="PAYLOAD")
    return value
