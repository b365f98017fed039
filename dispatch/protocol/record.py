"""What a task is: its states, its message on the wire, its record, and how both look from outside.

Pure: knows neither Redis nor Celery nor Flask.

::

    PENDING (SCHEDULED, QUEUED, RETRY_WAIT) ⇄ RUNNING (RUNNING) → SUCCESS (SUCCEEDED)
            │                                     └─────────────→ FAIL (DEAD_LETTERED, EXPIRED, CANCELLED)
            └→ FAIL (REJECTED: the broker refused it, it never ran)
    FAIL (DEAD_LETTERED, EXPIRED) → redrive → PENDING, next cycle
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

import uuid_utils

# --- headers of our messages: flat strings and integers only -------------------------------------
CYCLE = "x-cycle"  #: times the task was redriven
SEQ = "x-seq"  #: raised by every hand-over; the fence between copies
ATTEMPT = "x-attempt"  #: the attempt this copy authorises, 1-based; drives the ladder only
REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
PRINCIPAL = "x-principal"  #: whose task it is, so that a record lost with Redis is recreated for its owner
ACCEPTED_AT = "x-accepted-at"  #: epoch milliseconds
QUEUED_AT = "x-queued-at"  #: epoch milliseconds from which a later copy can be in the work queue: after its rung's wait
LAST_SPAN = "x-last-span"  #: span id of the run before
RETRY_QUEUE = "retry-queue"  #: what the headers exchange picks the rung by
LAST_ERROR_TYPE = "x-last-error-type"
LAST_ERROR = "x-last-error"
FAILED_AT = "x-failed-at"  #: epoch milliseconds
DEAD_REASON = "x-dead-reason"
DEAD_ID = "x-dead-id"  #: names a letter that has no usable task id of its own
UNREADABLE = "x-unreadable"  #: why a message's properties could not be read, with their first bytes in base64

TOO_LARGE = "x-too-large"  #: the size of a body that was not kept, and its digest; only its beginning is here

#: What the broker writes about deaths and deliveries. RabbitMQ 3.10 trusts these when a client sends
#: them, and takes a replay that keeps ``x-death`` for a cycle: strip them on every republish.
BROKER_HEADERS = frozenset({
    "x-death", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange",
    "x-last-death-queue", "x-last-death-reason", "x-last-death-exchange", "x-delivery-count", "x-acquired-count",
})  # fmt: skip

#: Bytes of a body that workers take. What the gateway sends is smaller, whatever JSON makes of a request's characters.
MAX_MESSAGE = 4_194_304

#: Characters of an error's message and of its type that go into a header or a record: headers travel in one frame.
MAX_ERROR, MAX_ERROR_TYPE = 2_000, 200

#: Characters of a traceback that go into Celery's event.
MAX_TRACEBACK = 65_536

#: Hops kept for each task.
MAX_HOPS = 200

LOCAL = "local"  #: the principal when no API keys are configured


class Status(enum.StrEnum):
    """The closed set of answers to "where is my task"."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAIL = "FAIL"


class State(enum.StrEnum):
    """Says more than `Status`."""

    SCHEDULED = "SCHEDULED"  #: recorded, the broker has not confirmed it yet
    QUEUED = "QUEUED"  #: in the work queue
    RETRY_WAIT = "RETRY_WAIT"  #: on a rung of the ladder
    RUNNING = "RUNNING"  #: a worker holds its lease
    SUCCEEDED = "SUCCEEDED"
    DEAD_LETTERED = "DEAD_LETTERED"  #: in the DLQ; can be redriven
    EXPIRED = "EXPIRED"  #: waited longer than the queue's TTL; in the DLQ; can be redriven
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"  #: the broker did not take it; it never runs

    @property
    def status(self) -> Status:
        """The status this state belongs to."""
        return _STATUS[self]

    @property
    def terminal(self) -> bool:
        """Whether only a redrive leads out of it."""
        return _STATUS[self] in (Status.SUCCESS, Status.FAIL)


_STATUS = {
    State.SCHEDULED: Status.PENDING, State.QUEUED: Status.PENDING, State.RETRY_WAIT: Status.PENDING,
    State.RUNNING: Status.RUNNING, State.SUCCEEDED: Status.SUCCESS,
    State.DEAD_LETTERED: Status.FAIL, State.EXPIRED: Status.FAIL, State.CANCELLED: Status.FAIL, State.REJECTED: Status.FAIL,
}  # fmt: skip


# --- ids, times, traces --------------------------------------------------------------------------
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TASK_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


def new_task_id() -> str:
    """A UUIDv7: carries its time, so that an expired record can be told from an unknown id."""
    return str(uuid_utils.uuid7())


def is_task_id(text: object) -> bool:
    """Whether the text can be a task id in a key, a header and a URL (ours are UUIDv7; others' may differ)."""
    return isinstance(text, str) and _TASK_ID.fullmatch(text) is not None


def issued_at(task_id: str) -> float | None:
    """Epoch seconds at which a UUIDv7 was made; None when it isn't one."""
    return int(task_id.replace("-", "")[:12], 16) / 1_000 if _UUID7.fullmatch(task_id) else None


def timestamp(millis: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds and ``Z``, from epoch milliseconds."""
    if millis is None:
        return None
    moment = dt.datetime.fromtimestamp(millis / 1_000, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def trace_id(traceparent: str | None) -> str | None:
    """The 32 hex digits of a W3C ``traceparent``; None when it isn't valid."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return match and match[1]


def child_traceparent(traceparent: str | None) -> str:
    """Continue a trace, or start one when there is none or it is invalid.

    Returns:
        A ``traceparent`` with the same trace id and a fresh span id (W3C Trace Context, level 1).
    """
    match = _TRACEPARENT.fullmatch(traceparent or "")
    trace, flags = (match[1], match[3]) if match else (secrets.token_hex(16), "01")
    return f"00-{trace}-{secrets.token_hex(8)}-{flags}"


# --- the message ---------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A message as it is on the wire, so that it can be sent again without decoding it."""

    body: bytes
    headers: Mapping[str, Any]
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    correlation_id: str | None = None
    routing_key: str = ""

    @property
    def task_id(self) -> str:
        """The task's id; a letter without one goes by the id the router gave it."""
        own, given = self.headers.get("id"), self.headers.get(DEAD_ID)
        return str(own) if is_task_id(own) else str(given) if is_task_id(given) else ""

    @property
    def letter_id(self) -> str:
        """The task's id, or for a message without a usable one an id that the same message always gets."""
        if self.task_id:
            return self.task_id
        # What the broker counts differs from look to look; the bytes of unreadable properties hold it, too.
        own = {name: value for name, value in self.headers.items() if name not in {*BROKER_HEADERS, UNREADABLE}}
        content = self.body + self.routing_key.encode() + json.dumps(own, sort_keys=True, default=str).encode()
        return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(content).hexdigest()))

    @property
    def type(self) -> str:
        """The task type's name; empty when the message has none."""
        name = self.headers.get("task")
        return name if isinstance(name, str) else ""

    @property
    def cycle(self) -> int:
        """Times the task was redriven."""
        return self.number(CYCLE)

    @property
    def seq(self) -> int:
        """The copy's fence."""
        return self.number(SEQ)

    @property
    def attempt(self) -> int:
        """The attempt this copy authorises."""
        return max(1, self.number(ATTEMPT, 1))

    def number(self, header: str, default: int = 0) -> int:
        """A header as a whole number; the default when it is missing or not one."""
        value = self.headers.get(header, default)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def text(self, header: str) -> str | None:
        """A header as text; None when it is missing or not text."""
        value = self.headers.get(header)
        return value if isinstance(value, str) else None

    def with_headers(self, *drop: str, **changes: Any) -> Message:
        """A copy for republishing: body untouched, the broker's own headers stripped.

        Args:
            drop: headers to leave out.
            changes: headers to set.
        """
        gone = BROKER_HEADERS.union(drop).difference(changes)
        kept = {name: value for name, value in self.headers.items() if name not in gone}
        return dataclasses.replace(self, headers={**kept, **changes})

    def to_json(self) -> str:
        """For the record; the body as text where it is UTF-8, otherwise base64."""
        try:
            body = {"body": self.body.decode()}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(self.body).decode()}
        return json.dumps({
            **body, "headers": dict(self.headers), "contentType": self.content_type,
            "contentEncoding": self.content_encoding, "correlationId": self.correlation_id, "routingKey": self.routing_key,
        }, separators=(",", ":"), default=str)  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> Message:
        """The inverse of `to_json`."""
        data = json.loads(text)
        body = data["body"].encode() if "body" in data else base64.b64decode(data["base64"])
        return cls(
            body,
            data["headers"],
            data["contentType"],
            data["contentEncoding"],
            data["correlationId"],
            data["routingKey"],
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """A message and where it must go: the result of a decision."""

    message: Message
    exchange: str
    routing_key: str
    queue: str  #: where the copy will wait, for people

    def to_json(self) -> str:
        """For the record, so that a crash between decision and publish is mended from it."""
        return json.dumps(
            {
                "message": self.message.to_json(),
                "exchange": self.exchange,
                "routingKey": self.routing_key,
                "queue": self.queue,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Copy:
        """The inverse of `to_json`."""
        data = json.loads(text)
        return cls(Message.from_json(data["message"]), data["exchange"], data["routingKey"], data["queue"])


# --- the record ----------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an attempt failed, as clients see it."""

    type: str
    message: str
    retryable: bool

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        title = self.type.replace("-", " ").replace("_", " ")
        return {
            "type": self.type,
            "title": title[:1].upper() + title[1:],
            "detail": self.message,
            "retryable": self.retryable,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A task as Redis holds it. Times are epoch milliseconds."""

    task_id: str
    type: str
    principal: str
    state: State
    cycle: int
    seq: int
    attempt: int  #: attempts started in this cycle
    max_attempts: int
    revision: int
    created_at: int
    updated_at: int
    published: bool = True
    started_at: int | None = None
    finished_at: int | None = None
    next_attempt_at: int | None = None
    queue: str | None = None  #: where its copy waits
    rung: str | None = None
    progress: Mapping[str, Any] | None = None
    result: Any = None
    error: ErrorInfo | None = None
    dead_reason: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    worker: str | None = None
    cancel_requested: bool = False
    lost_runs: int = 0
    discarded: bool = False  #: an operator gave the dead letter up
    before_redrive: State | None = None  #: a redrive was recorded and its copy is not confirmed yet
    decision: str | None = None  #: a `Copy` as JSON: decided, not confirmed yet
    decided_seq: int | None = None
    copy_attempt: int | None = None  #: the attempt that the copy on its way authorises
    key: str | None = None  #: the Idempotency-Key it was submitted with
    message: Message | None = None  #: the original, so that it can be sent again

    @property
    def buried(self) -> bool:
        """Whether its letter lies in the DLQ, to be redriven or discarded."""
        return self.state in (State.DEAD_LETTERED, State.EXPIRED) and not self.discarded

    @property
    def status(self) -> Status:
        """The closed status."""
        return self.state.status

    @property
    def trace_id(self) -> str | None:
        """The task's trace."""
        return trace_id(self.traceparent)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it (API.md, "A task")."""
        url = f"/v1/tasks/{self.task_id}"
        return {
            "taskId": self.task_id, "type": self.type, "status": self.status.value, "state": self.state.value,
            "statusUrl": url, "eventsUrl": f"{url}/events",
            "attempt": self.attempt, "maxAttempts": self.max_attempts, "cycle": self.cycle,
            "nextAttemptAt": timestamp(self.next_attempt_at), "queue": self.queue,
            "progress": self.progress, "result": self.result, "error": self.error and self.error.to_json(),
            "requestId": self.request_id, "traceId": self.trace_id,
            "createdAt": timestamp(self.created_at), "updatedAt": timestamp(self.updated_at),
            "startedAt": timestamp(self.started_at), "finishedAt": timestamp(self.finished_at), "revision": self.revision,
        }  # fmt: skip
