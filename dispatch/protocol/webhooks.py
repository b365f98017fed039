"""Completion webhooks: what a task asks for, what its receiver gets, and how that is signed (Standard Webhooks 1.0). Pure."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dispatch.protocol.ids import derived_id, issued_at, timestamp
from dispatch.protocol.message import WEBHOOK, Message, compact_json
from dispatch.protocol.record import Record, State, Status

#: The task type that delivers them.
TYPE = "webhook.deliver"

SUCCEEDED, FAILED = EVENTS = ("task.succeeded", "task.failed")

#: Secrets that can be there at the same time: the one that signs, and while receivers change over, the one before or after it.
MAX_SECRETS = 2

#: What a secret begins with, and the bytes that it has.
_PREFIX, _SIZES = "whsec_", range(24, 65)


@dataclasses.dataclass(frozen=True, slots=True)
class Webhook:
    """Where a task's end is announced."""

    url: str
    events: tuple[str, ...] = EVENTS  #: those that are

    @classmethod
    def of(cls, shown: Mapping[str, Any] | None) -> Webhook | None:
        """The inverse of `to_json`; None of None."""
        return None if shown is None else cls(shown["url"], tuple(shown["events"]))

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {"url": self.url, "events": list(self.events)}

    def written(self) -> str:
        """As a header of the task's message, and a field of its record."""
        return compact_json(self.to_json())


def read(text: str | None) -> Webhook | None:
    """The inverse of `Webhook.written`; None where there is none, or something else."""
    if not text:
        return None
    try:
        value = json.loads(text)
        events = tuple(event for event in value["events"] if event in EVENTS)
        return Webhook(value["url"], events) if isinstance(value["url"], str) else None
    except (ValueError, TypeError, KeyError):
        return None


def asked(message: Message) -> bool:
    """Whether a task's end, or a delivery's own, has to be noted elsewhere: the one question that every other task is asked."""
    return WEBHOOK in message.headers or message.type == TYPE


def event_of(state: State) -> str | None:
    """The event of an end; None for a task that has not ended, or was never accepted."""
    if not state.terminal or state is State.REJECTED:
        return None
    return SUCCEEDED if state.status is Status.SUCCESS else FAILED


def event_id(record: Record) -> str:
    """What identifies the end of a task's cycle to its receiver, through all retries and deliveries by hand."""
    return nth_delivery(record, 0)


def nth_delivery(record: Record, refused: int) -> str:
    """The task id of a delivery, the same whenever it is submitted.

    Args:
        record: of the task that has ended.
        refused: earlier ids whose submission the broker has refused for good.
    """
    issued = issued_at(record.task_id)
    millis = record.created_at if issued is None else round(issued * 1_000)
    return derived_id(millis, record.task_id, record.cycle, "webhook", refused)


def document(record: Record) -> str:
    """The body of a webhook: the event, and the task as the API shows it."""
    return json.dumps(
        {
            "type": event_of(record.state),
            "timestamp": timestamp(record.finished_at or record.updated_at),
            "data": record.to_json(),
        },
        separators=(",", ":"),
    )


def secrets(text: str) -> tuple[bytes, ...]:
    """The secrets of the setting.

    Args:
        text: ``whsec_<base64>``, perhaps two of them, comma-separated; the first is the current one.

    Raises:
        ValueError: which one is wrong, without its text.
    """
    found = [_secret(number, part) for number, part in enumerate(filter(None, map(str.strip, text.split(","))), 1)]
    if len(found) > MAX_SECRETS:
        raise ValueError(f"there are {len(found)} secrets, {MAX_SECRETS} at most")
    return tuple(found)


def _secret(number: int, text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_PREFIX) or len(key) not in _SIZES:
        raise ValueError(
            f"secret {number} is not {_PREFIX} and the base64 of {_SIZES.start} to {_SIZES.stop - 1} bytes"
        )
    return key


def headers(keys: Sequence[bytes], event: str, seconds: int, body: bytes) -> Mapping[str, str]:
    """The headers by which a receiver verifies a webhook.

    Args:
        keys: the secrets; the receiver needs one of them.
        event: its id.
        seconds: epoch seconds of this attempt.
        body: as it is sent.
    """
    signed = f"{event}.{seconds}.".encode() + body
    return {
        "webhook-id": event,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signatures(keys, signed)),
    }


def _signatures(keys: Iterable[bytes], signed: bytes) -> Iterable[str]:
    for key in keys:
        yield "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
