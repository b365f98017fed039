"""The record as a flat hash of text: read it, and rebuild it from a task's message. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dispatch.protocol import labels, webhooks
from dispatch.protocol.fingerprints import fingerprint_stored
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import (
    ACCEPTED_AT,
    CHECKPOINT,
    CONCURRENCY_KEY,
    DEADLINE_AT,
    FAILED_AT,
    LABELS,
    PARENT_ID,
    PRINCIPAL,
    REQUEST_ID,
    STEP,
    TRACEPARENT,
    WAITING_SINCE,
    WAKES_AT,
    WEBHOOK,
    Message,
    compact_json,
)
from dispatch.protocol.packing import unpacked
from dispatch.protocol.record import Brief, ErrorInfo, Record, State
from dispatch.protocol.sealing import UNSEALED, Sealing

#: What `parse_brief` reads.
BRIEF = ("type", "state", "errorType", "errorFingerprint", "discarded", "before")

#: What a search reads besides, where it chooses by it.
FOUND = (*BRIEF, "createdAt", "wakesAt", "requestId", "labels", "parentId")

#: The same where errors are compared: a record of a release without fingerprints has the error alone.
LIKE = (*BRIEF, "error")

#: The fields of a listed record: all that `parse` reads but the messages, its own and the one in ``decision``.
LISTED = (
    *BRIEF, "principal", "cycle", "seq", "attempt", "maxAttempts", "revision", "createdAt", "updatedAt", "published",
    "startedAt", "finishedAt", "nextAttemptAt", "wakesAt", "queue", "rung", "progress", "result", "error", "errorRetryable", "deadReason",
    "requestId", "traceparent", "worker", "cancelRequested", "lostRuns", "decidedSeq", "copyAttempt", "key",
    "labels", "waitingFor", "heldBy", "deadlineAt", "step", "concurrencyKey", "parentId", "webhook",
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
    before, created, wakes = (fields.get(name) for name in ("before", "createdAt", "wakesAt"))
    return Brief(
        type=fields.get("type", ""),
        state=State(fields["state"]),
        error_type=fields.get("errorType") or None,
        error_fingerprint=_fingerprint(fields),
        discarded=fields.get("discarded") == "1",
        before_redrive=State(before) if before else None,
        created_at=int(float(created)) if created else 0,
        wakes_at=int(float(wakes)) if wakes else 0,
        request_id=fields.get("requestId", ""),
        labels=labels.read(fields.get("labels")),
        parent_id=fields.get("parentId", ""),
    )


def _fingerprint(fields: Mapping[str, str]) -> str | None:
    if not fields.get("errorType"):
        return None  # one of an attempt before the one that succeeded may be left
    return fields.get("errorFingerprint") or (fingerprint_stored(fields["error"]) if "error" in fields else None)


def parse(
    task_id: str, fields: Mapping[str, str], message: str | None = None, *, sealing: Sealing = UNSEALED
) -> Record | None:
    """A record from its hash.

    Args:
        task_id: the task.
        fields: the hash, or its fields `LISTED`.
        message: the stored one, where it was read; the version before kept it in the hash. It stays sealed: it is sent again.
        sealing: of result, error and progress.

    Returns:
        The record; None from an empty hash.
    """
    if not fields or "state" not in fields:
        return None

    def number(name: str) -> int | None:
        value = fields.get(name)
        return int(float(value)) if value else None

    message = message or fields.get("message")
    error_type = fields.get("errorType")
    text = sealing.open_text(fields.get("error", ""))
    error = ErrorInfo(error_type, text, fields.get("errorRetryable") == "1") if error_type else None
    progress = json.loads(fields["progress"]) if fields.get("progress") else None
    state = State(fields["state"])
    # `wakesAt` stays what it was submitted with, by which lists have it; of a wait, the next copy's time is the same.
    waits = state is State.WAITING
    return Record(
        task_id=task_id,
        type=fields.get("type", ""),
        principal=fields.get("principal", ""),
        state=state,
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
        next_attempt_at=None if waits else number("nextAttemptAt"),
        wakes_at=number("nextAttemptAt" if waits else "wakesAt"),
        waiting_for=tuple(json.loads(fields["waitingFor"])) if fields.get("waitingFor") else (),
        held_by=fields.get("heldBy") or None,
        deadline_at=number("deadlineAt"),
        step=number("step") or 0,
        concurrency_key=fields.get("concurrencyKey") or None,
        parent_id=fields.get("parentId") or None,
        webhook=_webhook(fields.get("webhook")),
        queue=fields.get("queue"),
        rung=fields.get("rung"),
        progress=opened_progress(progress, sealing) if progress else None,
        result=sealing.open_json(fields["result"]) if fields.get("result") else None,
        error=error,
        error_fingerprint=_fingerprint(fields),
        dead_reason=fields.get("deadReason"),
        request_id=fields.get("requestId") or None,
        traceparent=fields.get("traceparent") or None,
        labels=labels.read(fields.get("labels")),
        worker=fields.get("worker"),
        cancel_requested=fields.get("cancelRequested") == "1",
        lost_runs=number("lostRuns") or 0,
        discarded=fields.get("discarded") == "1",
        before_redrive=State(fields["before"]) if fields.get("before") else None,
        decision=fields.get("decision"),
        decided_seq=number("decidedSeq"),
        copy_attempt=number("copyAttempt"),
        idempotency_key=fields.get("key") or None,
        checkpoint=fields.get("checkpoint"),
        message=unpacked(message, task_id, fields) if message else None,
    )


def opened_progress(entry: Mapping[str, Any], sealing: Sealing) -> Mapping[str, Any]:
    """Progress, or a hop, with its message opened."""
    text = entry.get("message")
    return {**entry, "message": sealing.open_text(text)} if isinstance(text, str) else entry


def seed(message: Message, max_attempts: int, **more: str) -> str:
    """What rebuilds a lost record from its message: the message alone is enough to run a task.

    Args:
        message: any copy of the task.
        max_attempts: of its type.
        more: other fields.

    Returns:
        Fields for the hash as JSON, a line feed, and the message to be stored beside it.
    """
    fields = {**_fields(message, max_attempts), **more}
    return f"{compact_json(fields)}\n{message.to_json()}"


def accepted(message: Message, max_attempts: int, *, at: int, key: str) -> dict[str, Any]:
    """The fields of a new record, without those that change with every transition.

    Args:
        message: the task's first.
        max_attempts: of its type.
        at: epoch milliseconds of its acceptance.
        key: its Idempotency-Key; empty without one.
    """
    fields = {**_fields(message, max_attempts), "createdAt": at}
    del fields["state"]
    if key:
        fields["key"] = key
    return fields


def _webhook(text: str | None) -> Mapping[str, Any] | None:
    wanted = webhooks.read(text)
    return None if wanted is None else wanted.to_json()


def _fields(message: Message, max_attempts: int) -> dict[str, Any]:
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
    }
    if labels.read(message.text(LABELS)):
        fields["labels"] = message.text(LABELS)
    if key := message.text(CONCURRENCY_KEY):
        fields["concurrencyKey"] = key
    if is_task_id(parent := message.headers.get(PARENT_ID)):
        fields["parentId"] = parent
    if webhooks.read(message.text(WEBHOOK)):
        fields["webhook"] = message.text(WEBHOOK)
    if accepted := message.moment(ACCEPTED_AT):
        fields["createdAt"] = accepted
    if wakes := message.moment(WAKES_AT):
        fields["wakesAt"] = wakes
    if DEADLINE_AT in message.headers:
        fields["deadlineAt"] = message.deadline_at
    if message.number("retries") >= message.attempt and (failed := message.moment(FAILED_AT)):
        fields["startedAt"] = failed  # a dead letter's last attempt began at that time at the latest
    if message.step:
        fields.update(step_fields(message))
        if began := message.moment(WAITING_SINCE) or message.moment(FAILED_AT):
            fields["startedAt"] = began
    return fields


def step_fields(message: Message) -> dict[str, Any]:
    """Where a task is between its waits, from a copy; nothing of a task that has not waited."""
    checkpoint = message.text(CHECKPOINT)
    kept = {} if checkpoint is None else {"checkpoint": checkpoint}
    return {"step": message.number(STEP), **kept} if message.step else {}
