"""What ``dlq redrive --payload`` and ``--fresh`` change of a dead letter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import IO, Any

import pydantic

from dispatch.errors import DispatchError
from dispatch.protocol.mending import Mend
from dispatch.protocol.message import Message
from dispatch.tasktypes import masking
from dispatch.tasktypes.registry import TaskType
from dispatch.tasktypes.validating import place, validated


class PayloadRefused(DispatchError):
    """The payload is none that a task of this type can have: the dead letter stays as it is."""


def read(stream: IO[bytes], most: int) -> Mapping[str, Any]:
    """The payload in a file.

    Args:
        stream: of JSON.
        most: bytes, as of a request.

    Raises:
        PayloadRefused: it is none.
    """
    raw = stream.read(most + 1)
    if len(raw) > most:
        raise PayloadRefused(f"the payload has more than {most:,} bytes")
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise PayloadRefused(f"the payload is no JSON: {exc}") from exc
    if not isinstance(payload, dict):
        raise PayloadRefused("the payload is no JSON object")
    if masks := masking.masks_in(payload):
        raise PayloadRefused(
            f"{masking.MASK} stands in place of a secret at {', '.join(masks)}: give the secret itself"
        )
    return payload


def mender(
    payload: Mapping[str, Any] | None, types: Mapping[str, TaskType], *, fresh: bool
) -> Callable[[Message], Mend]:
    """What is changed of each dead letter; the function raises `PayloadRefused`.

    Args:
        payload: the new one, if any.
        types: the task types.
        fresh: whether the other side gets a new effect.
    """

    def mend(dead_letter: Message) -> Mend:
        if payload is None:
            return Mend(fresh=fresh)
        known = types.get(dead_letter.type)
        if known is None:
            raise PayloadRefused(f"there is no task type {dead_letter.type!r} here")
        try:
            checked = validated(known.payload, dict(payload))
        except pydantic.ValidationError as exc:
            raise PayloadRefused(f"the payload is not valid: {_places(exc, payload)}") from exc
        plain = checked.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return Mend(plain, fresh=fresh, key=known.new_key_of(plain))

    return mend


def _places(exc: pydantic.ValidationError, payload: Mapping[str, Any]) -> str:
    found = exc.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(f"/{'/'.join(map(str, place(each['loc'], payload)))}: {each['msg']}" for each in found)
