"""Dead letters: the reasons, what the headers of one mean, and when it is stale. Pure."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from dispatch.protocol.fingerprints import fingerprint_stored, is_fingerprint
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import (
    CYCLE,
    DEAD_ID,
    DEAD_REASON,
    ERROR_FINGERPRINT,
    LAST_ERROR,
    LAST_ERROR_TYPE,
    SEQ,
    TOO_LARGE,
    Message,
)
from dispatch.protocol.record import Brief, Record, State


class Reason(enum.StrEnum):
    """Why a message is dead."""

    PERMANENT = "permanent"  #: its handler raised `PermanentError`
    RETRIES_EXHAUSTED = "retries-exhausted"  #: it failed after the last rung
    DEADLINE_EXCEEDED = "deadline-exceeded"  #: its next attempt would have begun after its deadline, or it waited too long without using up attempts
    UNDECRYPTABLE = "undecryptable"  #: its body is encrypted, with no key of the worker's
    UNDECODABLE = "undecodable"  #: its body is no JSON, or compressed
    MALFORMED = "malformed"  #: it is no task message
    TOO_LARGE = "too-large"  #: its body exceeds `MAX_MESSAGE`
    UNKNOWN_TYPE = "unknown-type"  #: no worker knows its task type
    UNAUTHENTIC = "unauthentic"  #: no gateway or worker of ours wrote it; it changes no record
    EXPIRED = "expired"  #: it waited longer than the queue's TTL
    DELIVERY_LIMIT = "delivery-limit"  #: the broker delivered it too often
    QUEUE_FULL = "queue-full"  #: the broker dropped it from a full queue
    REJECTED = "rejected"  #: a consumer rejected it


#: What is wrong with a message that a record refuses.
CLAIMS_TOO_MUCH = "its cycle or seq is further ahead of the task's record than any copy of ours can be"

_HOPELESS = frozenset(
    {Reason.PERMANENT, Reason.UNDECODABLE, Reason.MALFORMED, Reason.TOO_LARGE, Reason.UNKNOWN_TYPE, Reason.UNAUTHENTIC}
)

#: RabbitMQ's names of the reasons, where they differ.
_FROM_BROKER = {"delivery_limit": Reason.DELIVERY_LIMIT, "maxlen": Reason.QUEUE_FULL}


def is_hopeless(reason: str) -> bool:
    """Whether the message would die again."""
    return reason in _HOPELESS


def reason_of(dead_letter: Message) -> str:
    """Why it is dead: the router's header, otherwise the broker's about the last queue it died in.

    Returns:
        A `Reason`, or any text: a client that may publish to the dead-letter exchange sets its headers.
    """
    if TOO_LARGE in dead_letter.headers:
        return Reason.TOO_LARGE  # only the broker itself can have moved it
    if routed := dead_letter.text(DEAD_REASON):
        return routed
    deaths = dead_letter.headers.get("x-death")
    latest = deaths[0].get("reason") if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else None
    reason = str(dead_letter.headers.get("x-last-death-reason") or latest or "unknown")
    return _FROM_BROKER.get(reason, reason)


def normalized(dead_letter: Message) -> Message:
    """With an id, and numbers where we count: what the broker dead-lettered was never checked."""
    changes: dict[str, Any] = {}
    if not is_task_id(dead_letter.headers.get("id")):
        changes[DEAD_ID] = dead_letter.dead_letter_id
    if TOO_LARGE in dead_letter.headers:
        changes[LAST_ERROR] = f"the body has {dead_letter.headers[TOO_LARGE]}"
    for header in (CYCLE, SEQ):
        value = dead_letter.number(header)
        changes[header] = value if 0 <= value < 2**53 else 0
    return dataclasses.replace(dead_letter, headers={**dead_letter.headers, **changes})


def error_text(dead_letter: Message, reason: str) -> str:
    """The error's message: the router's header, perhaps sealed, otherwise one about the broker.

    Args:
        dead_letter: from the DLQ.
        reason: why it is dead.
    """
    return dead_letter.text(LAST_ERROR) or f"dead-lettered by the broker: {reason}"


def fingerprint_of(dead_letter: Message) -> str:
    """The fingerprint of its error: its header's, which was made before the error was sealed; or its text's."""
    given = dead_letter.text(ERROR_FINGERPRINT)
    if given is not None and is_fingerprint(given) and TOO_LARGE not in dead_letter.headers:
        return given
    return fingerprint_stored(error_text(normalized(dead_letter), reason_of(dead_letter)))


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant; None matches any."""

    type: str | None = None
    error_type: str | None = None
    task_id: str | None = None
    fingerprint: str | None = None  #: of the error, see `dispatch.protocol.fingerprints`

    def to_json(self) -> dict[str, str | None]:
        """As the API and commands show it."""
        return {"type": self.type, "errorType": self.error_type, "fingerprint": self.fingerprint}

    @property
    def ids(self) -> tuple[str, ...] | None:
        """The dead letters that are named one by one; None: any."""
        return None if self.task_id is None else (self.task_id,)

    def matches(self, dead_letter: Message) -> bool:
        """Whether a message in the DLQ is meant."""
        return (
            (self.type is None or dead_letter.type == self.type)
            and (self.error_type is None or _error_type(dead_letter) == self.error_type)
            and (self.ids is None or dead_letter.dead_letter_id in self.ids)
            and (self.fingerprint is None or fingerprint_of(dead_letter) == self.fingerprint)
        )

    def matches_brief(self, brief: Brief) -> bool:
        """Whether a record is that of a dead letter that is meant, but for the ids, which its reader knows."""
        return (
            brief.is_dead_letter
            and (self.type is None or brief.type == self.type)
            and (self.error_type is None or brief.error_type == self.error_type)
            and (self.fingerprint is None or brief.error_fingerprint == self.fingerprint)
        )


#: Every dead letter.
EVERY_DEAD_LETTER = DeadLetterFilter()


@dataclasses.dataclass(frozen=True, slots=True)
class NamedDeadLetters(DeadLetterFilter):
    """Several dead letters by their ids. For the process that names them: no bulk redrive in Redis has this form."""

    task_ids: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """As in `DeadLetterFilter`."""
        return self.task_ids


def _error_type(dead_letter: Message) -> str:
    return dead_letter.text(LAST_ERROR_TYPE) or reason_of(dead_letter)


def is_stale(dead_letter: Message, record: Record | None) -> bool:
    """Whether a message in the DLQ is of no use any more.

    One without a record is kept: Redis may have been wiped, and the message is all there is.
    """
    if record is None:
        return False
    if record.cycle > dead_letter.cycle:
        # Its redrive is recorded; the message leaves only after the confirm.
        return record.before_redrive is None
    if record.cycle < dead_letter.cycle:
        return False
    if record.seq > dead_letter.seq:
        return True  # an extra copy: the task lives on, or lies here, in a later one
    return record.discarded or record.state in (State.SUCCEEDED, State.CANCELLED, State.REJECTED)
