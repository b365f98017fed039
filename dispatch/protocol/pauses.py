"""Pauses: what is paused, why and by whom, and which of them holds a task. Pure."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection
from typing import Any, Self

from dispatch.protocol.ids import timestamp
from dispatch.protocol.message import PRINCIPAL, Message

ALL = "all"  #: every task

#: What the name of a paused lane begins with, see `dispatch.protocol.lanes`. No task is held: its queue is not consumed.
LANE = "lane:"

#: What can be paused: every task, those of a type, of a principal, or with a concurrency key; or a lane.
WHAT = r"all|lane:[a-z0-9][a-z0-9-]{0,31}|type:[a-z][a-z0-9_.-]{0,127}|principal:[A-Za-z0-9._:@~-]{1,128}|key:[A-Za-z0-9._:~-]{1,300}"

#: Characters of a reason.
MAX_REASON = 500

_WHAT = re.compile(WHAT)


def is_what(text: str) -> bool:
    """Whether a text names what can be paused."""
    return _WHAT.fullmatch(text) is not None


def kind_of(held_by: str) -> str:
    """``all``, ``type``, ``principal``, ``key`` …: a closed set, for metrics."""
    return held_by.partition(":")[0]


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """A pause that is in force, or was when it was read."""

    what: str  #: see `WHAT`
    reason: str  #: for people
    by: str  #: who paused it
    at: int  #: epoch milliseconds
    until: int | None = None  #: epoch milliseconds at which it ends by itself

    def text(self) -> str:
        """As it is stored below its name."""
        return json.dumps({"reason": self.reason, "by": self.by, "at": self.at, "until": self.until})

    @classmethod
    def parse(cls, what: str, text: str) -> Self:
        """The inverse of `text`."""
        fields = json.loads(text)
        return cls(what, fields["reason"], fields["by"], fields["at"], fields["until"])

    def over(self, now: float) -> bool:
        """Whether it has ended by itself.

        Args:
            now: epoch seconds.
        """
        return self.until is not None and self.until <= now * 1_000

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "what": self.what, "reason": self.reason, "by": self.by,
            "at": timestamp(self.at), "until": timestamp(self.until),
        }  # fmt: skip


def holding(paused: Collection[str], message: Message, keys: Collection[str] = ()) -> str | None:
    """The pause that holds a task; of several the widest.

    Args:
        paused: what is paused.
        message: of the task.
        keys: its concurrency keys.
    """
    if not paused:
        return None
    own = (ALL, f"type:{message.type}", f"principal:{message.text(PRINCIPAL) or ''}", *(f"key:{key}" for key in keys))
    return next((what for what in own if what in paused), None)
