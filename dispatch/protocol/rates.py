"""Rates of task types: how many runs may begin in any window of time, on all workers together. Pure.

A window of the last begins, and not a bucket of tokens: a bucket that is full lets twice its size begin within one unit, and one of
size one loses what each copy takes on its way. So ``10/s`` and ``600/m`` are as many in the long run, and 600 may begin at once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dispatch.protocol.message import LAST_ERROR_TYPE, QUEUED_AT, STEP_AT, Message

#: Runs of one unit at most: Redis keeps the time of each.
MAX_RATE = 10_000

#: What a rate may be counted by, in seconds.
UNITS = {"s": 1, "m": 60, "h": 3_600}

_RATE = re.compile(r"([1-9][0-9]{0,4})/([smh])")


class Rate(NamedTuple):
    """At most `runs` begin in any `seconds`."""

    runs: int
    seconds: int

    def __str__(self) -> str:
        unit = next(name for name, seconds in UNITS.items() if seconds == self.seconds)
        return f"{self.runs}/{unit}"


class RateLimit(NamedTuple):
    """The rate of a task's type."""

    type: str  #: the type's name
    rate: Rate

    @property
    def name(self) -> str:
        """``rate:<task type>``."""
        return f"rate:{self.type}"

    @property
    def held_by(self) -> str:
        """As a task shows it that waits for it."""
        return self.name


def parse_rate(text: object) -> Rate:
    """Read ``"10/s"``, ``"600/m"`` or ``"1000/h"``.

    Raises:
        ValueError: it is none, or its count is not 1 to `MAX_RATE`.
    """
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None or int(found[1]) > MAX_RATE:
        raise ValueError(f'a rate is "10/s", "600/m" or "1000/h", with a count of 1 to {MAX_RATE}, not {text!r}')
    return Rate(int(found[1]), UNITS[found[2]])


def counts(message: Message) -> bool:
    """Whether a copy's run counts: every first one, and every one that follows a failure or a redrive.

    The step after a wait is part of an attempt that has begun: it runs when it is due. Its copy is in the work queue from the end of
    the wait on; that of a redrive, which resumes there, much later.
    """
    followed = LAST_ERROR_TYPE in message.headers or message.moment(STEP_AT) < message.moment(QUEUED_AT)
    return message.step == 0 or followed
