"""Dead letters: the reasons, what one shows, and when it is stale. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import (
    DEAD_ID,
    DEAD_REASON,
    LAST_ERROR,
    LAST_ERROR_TYPE,
    TOO_LARGE,
    Message,
)
from dispatch.protocol.record import Record, State

#: Reasons of letters that would die again.
HOPELESS = frozenset({"permanent", "undecodable", "malformed", "too-large", "unknown-type"})


#: How RabbitMQ calls the reasons, and how we do.
_REASONS = {"delivery_limit": "delivery-limit", "maxlen": "queue-full", "rejected": "rejected", "expired": "expired"}


def death(message: Message) -> str:
    """Why a letter is dead: the router's word, otherwise the broker's about the last queue it died in."""
    if TOO_LARGE in message.headers:
        return "too-large"  # nobody but the broker could have moved it
    said = message.text(DEAD_REASON)
    if said:
        return said
    deaths = message.headers.get("x-death")
    latest = deaths[0].get("reason") if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else None
    reason = str(message.headers.get("x-last-death-reason") or latest or "unknown")
    return _REASONS.get(reason, reason)


def readable(message: Message) -> Message:
    """The letter with an id and only numbers where we count: what the broker dead-lettered was never checked."""
    changes: dict[str, Any] = {}
    if not is_task_id(message.headers.get("id")):
        changes[DEAD_ID] = message.letter_id
    if TOO_LARGE in message.headers:
        changes[LAST_ERROR] = f"the body has {message.headers[TOO_LARGE]}"
    for header in ("x-cycle", "x-seq"):
        value = message.number(header)
        changes[header] = value if 0 <= value < 2**53 else 0
    return dataclasses.replace(message, headers={**message.headers, **changes})


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which letters are meant; None means any."""

    type: str | None = None
    error_type: str | None = None
    task_id: str | None = None

    def matches(self, letter: Message) -> bool:
        """Whether a letter in the DLQ is meant."""
        return (
            (self.type is None or letter.type == self.type)
            and (self.error_type is None or (letter.text(LAST_ERROR_TYPE) or death(letter)) == self.error_type)
            and (self.task_id is None or letter.letter_id == self.task_id)
        )


def is_stale(letter: Message, record: Record | None) -> bool:
    """Whether a letter in the DLQ is of no use any more. Pure.

    A letter without a record is kept: Redis may have been wiped, and the letter is all there is.
    """
    if record is None:
        return False
    if record.cycle > letter.cycle:
        # Its redrive is recorded; the letter goes only after the confirm.
        return record.before_redrive is None
    if record.cycle < letter.cycle:
        return False
    if record.seq > letter.seq:
        return True  # an extra copy: the task lives on, or lies here, in a later one
    return record.discarded or record.state in (State.SUCCEEDED, State.CANCELLED, State.REJECTED)
