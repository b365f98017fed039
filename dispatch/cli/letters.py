"""Dead letters as people and programs see them. Pure, but for the clock and the terminal's width."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dispatch.cli.output import counted
from dispatch.cli.tables import age, plain, table, terminal_width, visible
from dispatch.deadletters.groups import DeadLetterGroup
from dispatch.deadletters.service import without_secrets
from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import LAST_ERROR, Message
from dispatch.protocol.record import Record
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.tasktypes.registry import TaskType

Types = Mapping[str, TaskType]

_HEADS = ("TASK", "TYPE", "ROBOT", "CYCLE", "ATTEMPTS", "REASON", "AGE", "ERROR")

#: Characters of a robot's name in a table: a payload that no type has checked may have any.
_LONGEST_NAME = 64


def listed(records: Iterable[Record], types: Types, sealing: Sealing) -> str:
    """A table, a line for each: which task, of which robot, why it failed, how long ago.

    Args:
        records: whole ones.
        types: the task types.
        sealing: opens sealed bodies.
    """
    now = time.time()
    rows = [_row(record, robot_of(record.message, types, sealing), now) for record in records]
    return table(_HEADS, rows, right={"CYCLE", "AGE"}, cut="ERROR", width=terminal_width())


def unauthentic(dead_letter: Message, fault: str) -> dict[str, Any]:
    """A dead letter that nothing of ours wrote, for programs.

    Args:
        dead_letter: as it lies in the DLQ.
        fault: what is wrong with it.
    """
    return {
        "deadLetterId": dead_letter.dead_letter_id, "type": dead_letter.type, "cycle": dead_letter.cycle,
        "seq": dead_letter.seq, "fault": fault,
    }  # fmt: skip


def unauthentic_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Such dead letters for people."""
    rows = [tuple(str(value) or "-" for value in entry.values()) for entry in entries]
    heads = ("DEAD LETTER", "TYPE", "CYCLE", "SEQ", "FAULT")
    return table(heads, rows, right={"CYCLE", "SEQ"}, cut="FAULT", width=terminal_width())


def grouped(groups: Iterable[DeadLetterGroup]) -> str:
    """A table, a line for each group: how many, of what, since when, with an example."""
    now = time.time()
    rows = [
        (
            f"{group.count:,}",
            group.key.type or "-",
            group.key.error_type or "-",
            group.key.fingerprint or "-",
            age(now - group.first_at / 1_000),
            age(now - group.last_at / 1_000),
            group.example,
            group.error or "-",
        )
        for group in groups
    ]
    heads = ("COUNT", "TYPE", "ERROR TYPE", "FINGERPRINT", "FIRST", "LAST", "EXAMPLE", "ERROR")
    return table(heads, rows, right={"COUNT", "FIRST", "LAST"}, cut="ERROR", width=terminal_width())


def _row(record: Record, robot: str | None, now: float) -> tuple[str, ...]:
    return (
        record.task_id,
        record.type or "-",
        robot or "-",
        str(record.cycle),
        f"{record.attempt}/{record.max_attempts}",
        record.dead_reason or "-",
        "-" if record.finished_at is None else age(now - record.finished_at / 1_000),
        error_of(record),
    )


def error_of(record: Record) -> str:
    """The error of the last failed attempt on one line; ``-`` without one."""
    return f"{record.error.type}: {record.error.message}".removesuffix(": ") if record.error else "-"


def robot_of(message: Message | None, types: Types, sealing: Sealing) -> str | None:
    """The payload's field `robot`, where it has one that is text, and no secret."""
    try:
        (payload, *_), *_ = json.loads(shown_body(message, types, sealing) if message else "null")
        robot = payload["robot"]
    except (ValueError, LookupError, TypeError):
        return None
    return robot[:_LONGEST_NAME] if isinstance(robot, str) and robot.isprintable() else None


def shown_body(message: Message, types: Types, sealing: Sealing) -> str:
    """The body as text, without the secrets of its payload; of one that can't be opened, why."""
    try:
        message = sealing.open(message)
    except SealError as exc:
        return f"({exc})"
    text = message.body.decode(errors="replace")
    try:
        whole = json.loads(text)
        shown = without_secrets(whole, types.get(message.type))
    except (ValueError, LookupError, TypeError):
        return text
    return text if shown is whole else json.dumps(shown)


def summary(record: Record, types: Types, sealing: Sealing) -> dict[str, Any]:
    """A dead letter in a list for programs: its task as ``GET /v1/tasks/{taskId}`` has it, and why it is dead."""
    return {
        **record.to_json(),
        "deadReason": record.dead_reason,
        "fingerprint": record.error_fingerprint,
        "robot": robot_of(record.message, types, sealing),
    }


def headers_of(message: Message, sealing: Sealing) -> dict[str, Any]:
    """A message's headers, its last error opened."""
    headers = dict(message.headers)
    if isinstance(error := headers.get(LAST_ERROR), str):
        headers[LAST_ERROR] = sealing.open_text(error)
    return headers


def whole(
    task_id: str, record: Record | None, letter: Message | None, hops: Sequence[Any], types: Types, sealing: Sealing
) -> dict[str, Any]:
    """One dead letter for programs.

    Args:
        task_id: its task's.
        record: the task's, whole; None where Redis has none.
        letter: as it lies in the DLQ; None where it was not found.
        hops: of the task.
        types: the task types.
        sealing: opens sealed bodies and texts.
    """
    accepted = record.message if record else None
    return {
        **(summary(record, types, sealing) if record else {"taskId": task_id}),
        "message": {
            "headers": headers_of(accepted, sealing) if accepted else {},
            "body": shown_body(accepted, types, sealing) if accepted else None,
        },
        "letter": letter
        and {
            "routingKey": letter.routing_key,
            "contentType": letter.content_type,
            "headers": headers_of(letter, sealing),
            "body": shown_body(letter, types, sealing),
        },
        "hops": list(hops),
    }


def page(record: Record | None, shown: Mapping[str, Any]) -> str:
    """One dead letter for people.

    Args:
        record: the task's; None where Redis has none.
        shown: see `whole`.
    """
    parts = [_head(record, shown), hop_lines(shown["hops"])]
    if letter := shown["letter"]:
        given = {name: value for name, value in letter["headers"].items() if value not in (None, {}, [])}
        parts.append(section("the letter in the DLQ", pairs({"routing key": letter["routingKey"], **given})))
    parts.append(section("body", [indented((letter or shown["message"])["body"] or "-")]))
    parts.append(f"redrive: celery -A celery_app dlq redrive {shown['taskId']}")
    return "\n\n".join(part for part in parts if part)


def _head(record: Record | None, shown: Mapping[str, Any]) -> str:
    if record is None:
        return f"{shown['taskId']}\n  Redis has no record of it: what follows is the letter alone."
    died = "-"
    if record.finished_at is not None:
        died = f"{timestamp(record.finished_at)}, {age(time.time() - record.finished_at / 1_000)} ago"
    facts = {
        "type": record.type,
        "robot": shown["robot"],
        "reason": record.dead_reason,
        "error": error_of(record),
        "attempts": f"{record.attempt} of {record.max_attempts}"
        + (f", after {counted(record.cycle, 'redrive')}" if record.cycle else ""),
        "accepted": timestamp(record.created_at),
        "died": died,
        "principal": record.principal,
        "request": record.request_id,
        "trace": record.trace_id,
    }
    return "\n".join([record.task_id, *pairs({name: value for name, value in facts.items() if value})])


def hop_lines(hops: Sequence[Mapping[str, Any]]) -> str:
    """A task's hops, a line each, below their title; empty without any."""
    rows = [
        f"  {hop.get('at', '-')}  {hop.get('kind', '-'):<13} "
        + plain(
            " ".join(f"{name}={value}" for name, value in hop.items() if name not in {"at", "kind", "seq", "spanId"})
        )
        for hop in hops
    ]
    return section("hops", [row.rstrip() for row in rows]) if rows else ""


def section(title: str, lines: Sequence[str]) -> str:
    """Lines below their title."""
    return "\n".join([title, *lines])


def pairs(values: Mapping[str, Any]) -> list[str]:
    """Names and values, a line each, the values below one another."""
    widest = max(map(len, values), default=0)
    return [f"  {name:<{widest}}  {_text(value)}" for name, value in values.items()]


def _text(value: Any) -> str:
    return plain(value if isinstance(value, str) else json.dumps(value, default=str))


def indented(text: str) -> str:
    """A text, as JSON where it is JSON, two columns to the right."""
    with contextlib.suppress(ValueError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return "\n".join(f"  {visible(line)}" for line in text.splitlines())
