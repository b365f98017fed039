"""What a worker takes from the work queue: only what it can run. Pure.

Stock Celery acks undecodable messages, dies of malformed ones, and drops expired ones; each would break P4.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Container, Iterable
from typing import Any

from dispatch.broker.decoding import decoded
from dispatch.errors import DispatchError
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import is_task_id
from dispatch.protocol.message import (
    ACCEPTED_AT,
    ATTEMPT,
    CHECKPOINT,
    COMPRESSION,
    CYCLE,
    DEADLINE,
    DEADLINE_AT,
    FAILED_AT,
    MOMENTS,
    QUEUED_AT,
    SEQ,
    STEP,
    STEP_AT,
    TOO_LARGE,
    UNREADABLE,
    WAITING_SINCE,
    WAKES_AT,
    Message,
)
from dispatch.protocol.sealing import SEALED_TYPE, UNSEALED, SealError, Sealing
from dispatch.protocol.signatures import NO_KEYS, MessageKeys

#: Objects and lists within one another that a body may have; the gateway allows fewer.
MAX_DEPTH = 100

#: The range of a header that counts; Lua's numbers are exact below it.
_COUNT = range(2**53)

_NUMBERS = {
    CYCLE: _COUNT,
    SEQ: _COUNT,
    ATTEMPT: _COUNT,
    "retries": _COUNT,
    ACCEPTED_AT: MOMENTS,
    QUEUED_AT: MOMENTS,
    FAILED_AT: MOMENTS,
    WAKES_AT: MOMENTS,
    DEADLINE: MOMENTS,
    DEADLINE_AT: MOMENTS,
    STEP: _COUNT,
    STEP_AT: MOMENTS,
    WAITING_SINCE: MOMENTS,
}


class Poison(DispatchError):
    """The message can never run: it goes to the DLQ.

    Args:
        reason: why.
        message: what is wrong with it.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check(
    headers: Any,
    body: Any,
    *,
    content_type: str | None,
    encoding: str | None,
    known: Container[str],
    now: dt.datetime,
    most_values: int,
    keys: MessageKeys = NO_KEYS,
    sealing: Sealing = UNSEALED,
) -> list[Any]:
    """Check whether a message can be given to a child.

    Args:
        headers: as they came.
        body: bytes or text.
        content_type: JSON is all we take, and a sealed body.
        encoding: of the text.
        known: the names of the task types.
        now: for messages that have an expiry of their own.
        most_values: objects, lists and commas that a body may have.
        keys: that it must be signed with.
        sealing: opens a sealed body.

    Returns:
        The body: args, kwargs and what follows of Celery's embed.

    Raises:
        Poison: it can't be.
    """
    if isinstance(headers, dict) and TOO_LARGE in headers:
        raise Poison(Reason.TOO_LARGE, f"the body has {headers[TOO_LARGE]}")
    _check_signature(headers, body, content_type, encoding, keys)
    if isinstance(headers, dict) and UNREADABLE in headers:
        raise Poison(Reason.MALFORMED, "the message's properties can't be read")
    if not isinstance(headers, dict) or "task" not in headers:
        raise Poison(Reason.MALFORMED, "the message has no header 'task': it is no Celery task message, protocol 2")
    name = headers["task"]
    if not is_task_id(headers.get("id")):
        raise Poison(Reason.MALFORMED, "the header 'id' is missing or is no usable task id")
    if not isinstance(name, str):
        raise Poison(Reason.MALFORMED, "the header 'task' is no text")
    _check_own(headers)
    if COMPRESSION in headers:
        raise Poison(Reason.UNDECODABLE, "the body is compressed: it could fill the memory")
    if content_type not in ("application/json", SEALED_TYPE):
        raise Poison(Reason.UNDECODABLE, f"the content type is {content_type!r}, not 'application/json'")
    if name not in known:
        raise Poison(Reason.UNKNOWN_TYPE, f"no worker here knows the task type {name!r}")
    if content_type == SEALED_TYPE:
        body, encoding = _opened(body, headers, sealing)
    triple = _check_body(body, encoding, most_values)
    if headers.get("eta") is not None:
        raise Poison(Reason.MALFORMED, "eta and countdown are refused: a worker would hold the wait in its memory")
    _check_expiry(headers.get("expires"), now)
    return triple


def _check_own(headers: dict[str, Any]) -> None:
    for header, allowed in _NUMBERS.items():
        value = headers.get(header, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
            raise Poison(Reason.MALFORMED, f"the header {header!r} is no whole number, or out of range")
    if not isinstance(headers.get(CHECKPOINT, ""), str):
        raise Poison(Reason.MALFORMED, f"the header {CHECKPOINT!r} is no text")


def _opened(body: Any, headers: dict[str, Any], sealing: Sealing) -> tuple[Any, str | None]:
    try:
        plain = sealing.open(Message(_raw(body), headers, SEALED_TYPE))
    except SealError as exc:
        raise Poison(Reason.UNDECRYPTABLE, str(exc)) from exc
    return plain.body, plain.content_encoding


def _raw(body: Any) -> bytes:
    return body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body or b"")


def _check_signature(headers: Any, body: Any, content_type: Any, encoding: Any, keys: MessageKeys) -> None:
    """Before all other checks: a message that is not ours has one fault, whatever others it has."""
    if not keys.secrets:
        return
    given = headers if isinstance(headers, dict) else {}
    if fault := keys.fault(Message(_raw(body), given, content_type, encoding)):
        raise Poison(Reason.UNAUTHENTIC, fault)


def _check_body(body: Any, encoding: str | None, most_values: int) -> list[Any]:
    try:
        text = body if isinstance(body, str) else decoded(bytes(body), encoding or "utf-8")
        # Before it is parsed: an empty list is three bytes of a body, and 64 in memory. Some more are in strings.
        if (values := sum(map(text.count, "[{,"))) > most_values:
            raise Poison(
                Reason.UNDECODABLE, f"the body has {values} objects, lists and commas, more than {most_values}"
            )
        triple = json.loads(text)
    except (LookupError, ValueError, RecursionError) as exc:
        raise Poison(Reason.UNDECODABLE, f"the body is no JSON: {exc}") from exc
    if not (isinstance(triple, list) and len(triple) == 3):
        raise Poison(Reason.MALFORMED, "the body is not [args, kwargs, embed]")
    args, kwargs, embed = triple
    if not (isinstance(args, list) and len(args) == 1 and isinstance(args[0], dict)):
        raise Poison(Reason.MALFORMED, "the body must carry one argument, the payload object")
    if kwargs != {}:
        raise Poison(Reason.MALFORMED, "keyword arguments are not taken")
    if not isinstance(embed, dict | None):
        raise Poison(Reason.MALFORMED, "the third part of the body is no object")
    if embed and (embed.get("chord") or embed.get("errbacks")):
        raise Poison(Reason.MALFORMED, "chords and error callbacks are refused: they fire on each failed attempt")
    if _deeper(triple, MAX_DEPTH):
        raise Poison(Reason.UNDECODABLE, f"the body is nested deeper than {MAX_DEPTH}")
    return [args, kwargs, _links(embed or {})]


def _links(embed: dict[str, Any]) -> dict[str, Any]:
    """What follows a success; Celery would take the rest of embed for properties of the request."""
    links = {name: embed.get(name) for name in ("callbacks", "chain")}
    for name, signatures in links.items():
        if signatures is not None and not (
            isinstance(signatures, list) and all(isinstance(signature, dict) for signature in signatures)
        ):
            raise Poison(Reason.MALFORMED, f"{name} in the third part of the body is no list of signatures")
    return {**links, "errbacks": None, "chord": None}


def _deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_expiry(expires: Any, now: dt.datetime) -> None:
    if expires is None:
        return
    try:
        moment = dt.datetime.fromisoformat(expires)
    except (TypeError, ValueError) as exc:
        raise Poison(Reason.MALFORMED, "the header 'expires' is no ISO 8601 time") from exc
    if (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) <= now:
        raise Poison(Reason.EXPIRED, f"it expired at {expires}")
