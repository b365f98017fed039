"""Tasks as people and programs see them. Pure, but for the clock and the terminal's width."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dispatch.cli import letters
from dispatch.cli.tables import age, plain, table, terminal_width
from dispatch.protocol import labels
from dispatch.protocol.ids import timestamp
from dispatch.protocol.record import Record, State
from dispatch.store.task_counts import TaskCounts

_HEADS = ("TASK", "TYPE", "STATE", "ATTEMPTS", "AGE", "PRINCIPAL", "LABELS", "ERROR")

#: Columns that a narrow terminal lacks, the first one first.
_LEFT_OUT = ("PRINCIPAL", "ATTEMPTS", "LABELS")


def summary(record: Record) -> dict[str, Any]:
    """A task for programs: as ``GET /v1/tasks/{taskId}`` has it, and whose it is."""
    return {**record.to_json(), "principal": record.principal}


def listed(records: Iterable[Record]) -> str:
    """A table, a line for each: which task, how it is, how old, whose, and why its last attempt failed."""
    now = time.time()
    rows = [
        (
            record.task_id,
            record.type or "-",
            record.state.value,
            f"{record.attempt}/{record.max_attempts}",
            age(now - record.created_at / 1_000),
            record.principal or "-",
            labels.written(record.labels) or "-",
            letters.error_of(record),
        )
        for record in records
    ]
    return table(_HEADS, rows, right={"AGE"}, cut="ERROR", leave_out=_LEFT_OUT, width=terminal_width())


def page(record: Record, shown: Mapping[str, Any]) -> str:
    """One task for people.

    Args:
        record: the task's.
        shown: see `summary`, with its hops, and perhaps its payload.
    """
    now = time.time()
    facts = {
        "type": record.type,
        "state": f"{record.state} ({record.status})",
        "attempts": f"{record.attempt} of {record.max_attempts}",
        "cycle": record.cycle or "",
        "queue": record.queue,
        "next attempt": timestamp(record.next_attempt_at),
        "step": record.step or "",
        **(_sleep(record) if record.state in (State.DELAYED, State.WAITING) else {}),
        "progress": record.progress and f"{record.progress.get('percent')} % {record.progress.get('message', '')}",
        "error": letters.error_of(record).removeprefix("-"),
        "labels": labels.written(record.labels),
        "accepted": f"{timestamp(record.created_at)}, {age(now - record.created_at / 1_000)} ago",
        "started": timestamp(record.started_at),
        "finished": timestamp(record.finished_at),
        "worker": record.worker,
        "principal": record.principal,
        "request": record.request_id,
        "trace": record.trace_id,
    }
    parts = ["\n".join([record.task_id, *letters.pairs({name: value for name, value in facts.items() if value})])]
    parts.append(letters.hop_lines(shown["hops"]))
    if record.result is not None:
        parts.append(letters.section("result", [letters.indented(json.dumps(record.result))]))
    if "payload" in shown:
        gone = shown["masked"] is None
        text = "  it has left the record" if gone else letters.indented(json.dumps(shown["payload"]))
        parts.append(letters.section("payload", [text]))
    return "\n\n".join(part for part in parts if part)


def _sleep(record: Record) -> dict[str, str | None]:
    return {"wakes": timestamp(record.wakes_at), "waiting for": ", ".join(record.waiting_for)}


def hop_table(hops: Sequence[Mapping[str, Any]]) -> str:
    """The hops of a task, a line each."""
    rows = [
        (
            str(hop.get("seq", "-")),
            str(hop.get("at", "-")),
            str(hop.get("kind", "-")),
            plain(" ".join(f"{name}={value}" for name, value in hop.items() if name not in _SHOWN)) or "-",
        )
        for hop in hops
    ]
    heads = ("SEQ", "AT", "HOP", "WITH")
    return table(heads, rows, right={"SEQ"}, cut="WITH", width=terminal_width()) if rows else "no hops"


_SHOWN = frozenset({"seq", "at", "kind", "spanId"})


def counts(found: TaskCounts) -> str:
    """Tasks by type and state, and dead letters by error."""
    rows = [
        (name, str(sum(states.values())), ", ".join(f"{number:,} {state}" for state, number in states.items()))
        for name, states in found.by_type.items()
    ]
    parts = [table(("TASK TYPE", "TASKS", "STATES"), rows, right={"TASKS"}) if rows else "no tasks"]
    if found.dead_letters:
        dead = [(name, str(number)) for name, number in found.dead_letters.items()]
        parts.append(table(("ERROR OF DEAD LETTERS", "TASKS"), dead, right={"TASKS"}))
    rest = "" if found.complete else "; there are more: the newest ones were counted"
    parts.append(f"{found.tasks:,} as of {timestamp(found.as_of)}{rest}")
    return "\n\n".join(parts)
