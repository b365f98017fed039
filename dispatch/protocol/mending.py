"""A redrive that changes what is sent: another payload, another effect at the other side. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.message import (
    CHECKPOINT,
    COMPRESSION,
    CONCURRENCY_KEY,
    EFFECT_KEY,
    SHARD,
    STEP,
    STEP_AT,
    WAITING_SINCE,
    Message,
    compact_json,
)
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.protocol.shards import shard_of

#: Parts of Celery's embed that a mended message keeps: what follows a success.
_LINKS = ("callbacks", "chain")

#: Headers of a task that has waited: without them its handler begins anew.
_STEPS = (STEP, STEP_AT, WAITING_SINCE, CHECKPOINT)

_CYCLE = re.compile(r"\.[1-9][0-9]{0,15}")


@dataclasses.dataclass(frozen=True, slots=True)
class Mend:
    """What an operator changes of a dead letter."""

    payload: Mapping[str, Any] | None = None  #: JSON-ready, as validated; None keeps the one that it has
    fresh: bool = (
        False  #: a new effect at the other side, though the payload may be the same; a task that has waited begins anew
    )
    key: str | None = (
        None  #: of a type that makes concurrency keys, the new payload's, empty for none; None keeps the one that it has
    )

    def __bool__(self) -> bool:
        return self.payload is not None or self.fresh

    def hop(self) -> dict[str, Any]:
        """What the hop and the audit log have about it: that the payload was changed, never what it is."""
        found = {"payloadEdited": self.payload is not None, "fresh": self.fresh}
        return {name: True for name, given in found.items() if given}


#: Nothing is changed.
AS_IT_WAS = Mend()


def mended(message: Message, mend: Mend, sealing: Sealing, *, shards: int = 1) -> Message:
    """The first message of the cycle that a redrive begins, with what the operator changes.

    Args:
        message: of that cycle, as `dispatch.protocol.copies.redriven_copy` makes it.
        mend: what is changed; empty: nothing.
        sealing: opens the old body, seals the new one.
        shards: of the default lane: one with another concurrency key goes to that key's.
    """
    if not mend:
        return message
    if mend.payload is not None:
        message = _with_payload(message, mend.payload, sealing)
    gone = [*(_STEPS if mend.fresh else ()), *(() if mend.key is None else (CONCURRENCY_KEY, SHARD))]
    changes = {EFFECT_KEY: f"{message.task_id}.{message.cycle}", **({CONCURRENCY_KEY: mend.key} if mend.key else {})}
    if mend.key is not None and shards > 1:
        changes[SHARD] = str(shard_of(mend.key or message.task_id, shards))
    return message.with_headers(*gone, **changes)


def effect_key(message: Message) -> str:
    """The key by which the other side recognises a repetition: the task's id, until an operator asks for another effect."""
    given, task_id = message.text(EFFECT_KEY), message.task_id
    if given is None or not (given.startswith(task_id) and _CYCLE.fullmatch(given[len(task_id) :])):
        return task_id
    return given


def same_work(one: Message, other: Message, sealing: Sealing) -> bool:
    """Whether two messages of a task have the same payload, however each is sealed, and the same effect."""
    try:
        bodies = [json.loads(sealing.open(each).body) for each in (one, other)]
    except (ValueError, SealError):
        return False
    return bool(bodies[0] == bodies[1]) and effect_key(one) == effect_key(other)


def _with_payload(message: Message, payload: Mapping[str, Any], sealing: Sealing) -> Message:
    try:
        _, _, embed = json.loads(sealing.open(message).body)
        links = {name: embed.get(name) for name in _LINKS}
    except (ValueError, TypeError, AttributeError, RecursionError, SealError):
        links = dict.fromkeys(_LINKS)  # of a body that nothing can read
    body = compact_json([[payload], {}, {**links, "errbacks": None, "chord": None}]).encode()
    plain = message.with_headers(COMPRESSION)
    return sealing.seal(
        dataclasses.replace(plain, body=body, content_type="application/json", content_encoding="utf-8")
    )
