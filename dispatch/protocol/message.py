"""A task's message on the wire: its headers, its body, and a copy on its way."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.ids import is_task_id

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


#: By level, what its headers exchange goes by: ``1`` waits in the level's queue, ``0`` passes it by. No name begins with ``x-``:
#: RabbitMQ leaves such headers out of account.
DELAY_BITS = tuple(f"delay-{level}" for level in range(22))


WAKES_AT = "x-wakes-at"  #: epoch milliseconds before which a task that was submitted for later does not run


DEADLINE = "x-deadline"  #: milliseconds from the time that a cycle may begin, by which its last attempt must begin


DEADLINE_AT = "x-deadline-at"  #: epoch milliseconds after which no attempt of this cycle begins


STEP = "x-step"  #: waits that the task's handler has gone through; only of a task that has waited


CHECKPOINT = "x-checkpoint"  #: the state that the handler's last wait left for the step to come: JSON, perhaps sealed


STEP_AT = "x-step-at"  #: epoch milliseconds from which the step can run: the end of the wait before it


WAITING_SINCE = "x-waiting-since"  #: epoch milliseconds at which the wait before this step began


LAST_ERROR_TYPE = "x-last-error-type"


LAST_ERROR = "x-last-error"


ERROR_FINGERPRINT = "x-error-fingerprint"  #: of the last error, see `dispatch.protocol.fingerprints`


FAILED_AT = "x-failed-at"  #: epoch milliseconds


EFFECT_KEY = "x-effect-key"  #: what the other side recognises a repetition by, where that is not the task's id; see `dispatch.protocol.mending`


DEAD_REASON = "x-dead-reason"


DEAD_ID = "x-dead-id"  #: identifies a dead letter that has no usable task id of its own


PARENT_ID = "x-parent-id"  #: the task that submitted it: its handler, or its end


WEBHOOK = "x-webhook"  #: where the end of the task is announced, as JSON; see `dispatch.protocol.webhooks`


CONCURRENCY_KEY = "x-concurrency-key"  #: name of the key that the task has to take, see `dispatch.protocol.concurrency`


SHARD = "shard"  #: number of the shard whose queue the task's copies go to, as text, see `dispatch.protocol.shards`; named as `DELAY_BITS`


LABELS = "x-labels"  #: the task's labels as one text, see `dispatch.protocol.labels`


SIGNATURE = "x-signature"  #: key id and HMAC of what must not be forged; see `dispatch.protocol.signatures`


#: Where a foreign message's ``compression`` header goes: kombu would decompress the body, however large it gets.
COMPRESSION = "x-compression"


UNREADABLE = "x-unreadable"  #: why a message's properties could not be read, with their first bytes in base64


TOO_LARGE = "x-too-large"  #: the size of a body that was not kept, and its digest; only its beginning is here


#: What the broker writes about deaths and deliveries. RabbitMQ 3.10 trusts these when a client sends
#: them, and takes a replay that keeps ``x-death`` for a cycle: strip them on every republish.
BROKER_HEADERS = frozenset({
    "x-death", "x-first-death-queue", "x-first-death-reason", "x-first-death-exchange",
    "x-last-death-queue", "x-last-death-reason", "x-last-death-exchange", "x-delivery-count", "x-acquired-count",
})  # fmt: skip


#: What no copy keeps of the one before: how that one was delivered, and how long it was delayed.
_DELIVERED = BROKER_HEADERS.union(DELAY_BITS)


#: Bytes of a body that workers take. What the gateway sends is smaller, whatever JSON makes of a request's characters.
MAX_MESSAGE = 4_194_304


#: The cycle and the seq that a message may claim for a task without a record. A handful in practice; beyond it nothing of
#: ours wrote the message, and counting on from the largest number that Lua can count to would lose the task.
MAX_UNRECORDED = 1_000_000


#: Steps, in cycle or seq, that a message may be ahead of its task's record: what a Redis that lost its last second forgot.
MAX_AHEAD = 8


#: Epoch milliseconds that have a date, up to the year 9999.
MOMENTS = range(253_402_300_800_000)


#: Characters of an error's message and of its type that go into a header or a record: headers travel in one frame.
MAX_ERROR, MAX_ERROR_TYPE = 2_000, 200


#: Characters of a traceback that go into Celery's event.
MAX_TRACEBACK = 65_536


#: A value as compact JSON; `json.dumps` with options makes an encoder at each call.
compact_json = json.JSONEncoder(separators=(",", ":"), default=str).encode


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
        """The task's id; a dead letter without one has the id that the router gave it."""
        own, given = self.headers.get("id"), self.headers.get(DEAD_ID)
        return str(own) if is_task_id(own) else str(given) if is_task_id(given) else ""

    @property
    def dead_letter_id(self) -> str:
        """The task's id, or for a message without a usable one an id that the same message always gets."""
        if self.task_id:
            return self.task_id
        # The broker's counters differ from delivery to delivery; the bytes of unreadable properties hold them, too.
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

    @property
    def step(self) -> int:
        """Waits that the task's handler has gone through."""
        return self.number(STEP)

    def number(self, header: str, default: int = 0) -> int:
        """A header as a whole number; the default when it is missing or not one."""
        value = self.headers.get(header, default)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def moment(self, header: str) -> int:
        """A header as epoch milliseconds; 0 when it has none, or one without a date."""
        value = self.number(header)
        return value if value in MOMENTS else 0

    @property
    def due_at(self) -> int:
        """Epoch milliseconds from which its task may run: its acceptance, or the later time that it was submitted for; 0 when unknown."""
        return max(self.moment(ACCEPTED_AT), self.moment(WAKES_AT))

    @property
    def deadline_at(self) -> int:
        """Epoch milliseconds after which no attempt begins; 0 for a task without a deadline."""
        return self.moment(DEADLINE_AT)

    @property
    def step_due_at(self) -> int:
        """As `due_at`, of the step that it is for."""
        return max(self.due_at, self.moment(STEP_AT))

    def text(self, header: str) -> str | None:
        """A header as text; None when it is missing or not text."""
        value = self.headers.get(header)
        return value if isinstance(value, str) else None

    def with_headers(self, *drop: str, **changes: Any) -> Message:
        """A copy for republishing: body untouched; the broker's own headers, and those of a delay, are stripped.

        Args:
            drop: headers to leave out.
            changes: headers to set.
        """
        gone = _DELIVERED.union(drop).difference(changes)
        kept = {name: value for name, value in self.headers.items() if name not in gone}
        return dataclasses.replace(self, headers={**kept, **changes})

    def to_json(self) -> str:
        """For the record; the body as text where it is UTF-8, otherwise base64."""
        try:
            body = {"body": self.body.decode()}
        except UnicodeDecodeError:
            body = {"base64": base64.b64encode(self.body).decode()}
        return compact_json({
            **body, "headers": dict(self.headers), "contentType": self.content_type,
            "contentEncoding": self.content_encoding, "correlationId": self.correlation_id, "routingKey": self.routing_key,
        })  # fmt: skip

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
