"""The record as a flat hash of text: read it, and rebuild it from a task's message. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.message import ACCEPTED_AT, FAILED_AT, PRINCIPAL, REQUEST_ID, TRACEPARENT, Message
from dispatch.protocol.record import Brief, ErrorInfo, Record, State

#: What `parse_brief` reads.
BRIEF = ("type", "state", "errorType", "discarded", "before")

#: The fields of a listed record: all that `parse` reads but the messages, ``message`` and ``decision``.
LISTED = (
    *BRIEF, "principal", "cycle", "seq", "attempt", "maxAttempts", "revision", "createdAt", "updatedAt", "published",
    "startedAt", "finishedAt", "nextAttemptAt", "queue", "rung", "progress", "result", "error", "errorRetryable", "deadReason",
    "requestId", "traceparent", "worker", "cancelRequested", "lostRuns", "decidedSeq", "copyAttempt", "key",
)  # fmt: skip

#: The one of these that may be large: all others together have some thousand bytes at most.
LARGE = "result"


def parse_brief(fields: Mapping[str, str]) -> Brief | None:
    """The brief of a record.

    Args:
        fields: the hash, or at least its fields `BRIEF`.

    Returns:
        The brief; None without a record.
    """
    if "state" not in fields:
        return None
    before = fields.get("before")
    return Brief(
        type=fields.get("type", ""),
        state=State(fields["state"]),
        error_type=fields.get("errorType") or None,
        discarded=fields.get("discarded") == "1",
        before_redrive=State(before) if before else None,
    )


def parse(task_id: str, fields: Mapping[str, str]) -> Record | None:
    """A record from its hash.

    Args:
        task_id: the task.
        fields: the hash.

    Returns:
        The record; None from an empty hash.
    """
    if not fields or "state" not in fields:
        return None

    def number(name: str) -> int | None:
        value = fields.get(name)
        return int(float(value)) if value else None

    error_type = fields.get("errorType")
    error = ErrorInfo(error_type, fields.get("error", ""), fields.get("errorRetryable") == "1") if error_type else None
    return Record(
        task_id=task_id,
        type=fields.get("type", ""),
        principal=fields.get("principal", ""),
        state=State(fields["state"]),
        cycle=number("cycle") or 0,
        seq=number("seq") or 0,
        attempt=(number("attempt") or 0) if "startedAt" in fields else 0,
        max_attempts=number("maxAttempts") or 0,
        revision=number("revision") or 0,
        created_at=number("createdAt") or 0,
        updated_at=number("updatedAt") or 0,
        published=fields.get("published") == "1",
        started_at=number("startedAt"),
        finished_at=number("finishedAt"),
        next_attempt_at=number("nextAttemptAt"),
        queue=fields.get("queue"),
        rung=fields.get("rung"),
        progress=json.loads(fields["progress"]) if fields.get("progress") else None,
        result=json.loads(fields["result"]) if fields.get("result") else None,
        error=error,
        dead_reason=fields.get("deadReason"),
        request_id=fields.get("requestId") or None,
        traceparent=fields.get("traceparent") or None,
        worker=fields.get("worker"),
        cancel_requested=fields.get("cancelRequested") == "1",
        lost_runs=number("lostRuns") or 0,
        discarded=fields.get("discarded") == "1",
        before_redrive=State(fields["before"]) if fields.get("before") else None,
        decision=fields.get("decision"),
        decided_seq=number("decidedSeq"),
        copy_attempt=number("copyAttempt"),
        idempotency_key=fields.get("key") or None,
        message=Message.from_json(fields["message"]) if fields.get("message") else None,
    )


def seed(message: Message, max_attempts: int) -> dict[str, Any]:
    """The fields that rebuild a lost record from its message: the message alone is enough to run a task.

    Args:
        message: any copy of the task.
        max_attempts: of its type.

    Returns:
        Fields for the hash.
    """
    fields: dict[str, Any] = {
        "type": message.type,
        "principal": message.text(PRINCIPAL) or "",
        "requestId": message.text(REQUEST_ID) or "",
        "traceparent": message.text(TRACEPARENT) or "",
        "cycle": message.cycle,
        "seq": message.seq,
        "attempt": message.attempt,
        "maxAttempts": max_attempts,
        "state": State.QUEUED.value,
        "message": message.to_json(),
    }
    if accepted := message.number(ACCEPTED_AT):
        fields["createdAt"] = accepted
    if message.number("retries") >= message.attempt and (failed := message.number(FAILED_AT)):
        fields["startedAt"] = failed  # a dead letter's last attempt began at that time at the latest
    return fields
