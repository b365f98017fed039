"""Pure: a failed attempt and the ladder in, what happens next out.

The router only carries the decision out; nothing here knows a broker, a clock or Celery.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
from collections.abc import Sequence

#: A rung's name is part of a queue's name and of a header's value.
_RUNG_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

#: The parking place for copies whose first copy still runs; not a rung of the ladder.
LEASE_RUNG = "lease"


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One delay queue of the ladder."""

    name: str  #: ends in the queue's name, ``robot.retry.q.<name>``
    seconds: float  #: how long a message waits there; frozen at the queue's declaration


class FailureKind(enum.StrEnum):
    """What sort of failure an attempt ended in."""

    PERMANENT = "permanent"  #: the handler said that trying again can't help
    RETRYABLE = "retryable"  #: the handler, or an unknown exception: the next attempt may help
    THROTTLED = "throttled"  #: the other side is busy: no attempt is used up
    OUTAGE = "outage"  #: our own Redis or broker was away: no attempt is used up


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt, as plain values that survive pickling, JSON and AMQP headers."""

    kind: FailureKind
    type: str  #: machine-readable, e.g. ``upstream-timeout`` or ``ValueError``
    message: str  #: for people
    retry_after: float | None = None  #: seconds the other side asked for

    @property
    def retryable(self) -> bool:
        """Whether another attempt may help."""
        return self.kind is not FailureKind.PERMANENT


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """Wait on this rung, then make the next attempt."""

    rung: Rung


@dataclasses.dataclass(frozen=True, slots=True)
class Park:
    """Wait on this rung, then make the same attempt again: none is used up."""

    rung: Rung


@dataclasses.dataclass(frozen=True, slots=True)
class Dead:
    """To the dead-letter queue."""

    reason: str  #: ``permanent``, ``retries-exhausted`` or ``deadline-exceeded``


Decision = Retry | Park | Dead


def decide(failure: Failure, attempt: int, ladder: Sequence[Rung], deadline: float, now: float) -> Decision:
    """Choose what happens after a failed attempt.

    Args:
        failure: how the attempt ended.
        attempt: the attempt that failed, 1-based.
        ladder: the rungs of this task type, shortest first.
        deadline: epoch seconds after which the task may no longer wait without using up attempts.
        now: epoch seconds.

    Returns:
        `Retry`, `Park` or `Dead`.
    """
    if failure.kind is FailureKind.PERMANENT:
        return Dead("permanent")
    if failure.kind in (FailureKind.THROTTLED, FailureKind.OUTAGE):
        return _park(failure, attempt, ladder, deadline, now)
    if attempt > len(ladder):
        return Dead("retries-exhausted")
    if failure.retry_after is None:
        return Retry(ladder[attempt - 1])
    rung = _first_long_enough(ladder, failure.retry_after)
    return Retry(rung) if rung else _park(failure, attempt, ladder, deadline, now)


def _park(failure: Failure, attempt: int, ladder: Sequence[Rung], deadline: float, now: float) -> Decision:
    if now >= deadline:
        return Dead("deadline-exceeded")
    if not ladder:
        return Dead("retries-exhausted")
    if failure.retry_after is None:
        return Park(ladder[min(attempt, len(ladder)) - 1])
    return Park(_first_long_enough(ladder, failure.retry_after) or ladder[-1])


def _first_long_enough(ladder: Sequence[Rung], seconds: float) -> Rung | None:
    return next((rung for rung in ladder if rung.seconds >= seconds), None)


def parse_ladder(text: str) -> tuple[Rung, ...]:
    """Read ``"1m=60,5m=300,30m=1800"``.

    Args:
        text: comma-separated ``name=seconds``.

    Returns:
        The rungs, in the order given.

    Raises:
        ValueError: a name or a number is not usable, a name is given twice, or the waits don't rise.
    """
    rungs: list[Rung] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, seconds = (piece.strip() for piece in part.partition("="))
        if not _RUNG_NAME.fullmatch(name) or name == LEASE_RUNG:
            msg = f"rung name {name!r} must be lower-case letters, digits and '-', and not 'lease'"
            raise ValueError(msg)
        try:
            wait = float(seconds)
        except ValueError as exc:
            msg = f"rung {name!r} needs seconds, as in '{name}=60', not {seconds!r}"
            raise ValueError(msg) from exc
        if not 0.001 <= wait <= 30 * 86_400:
            msg = f"rung {name!r} must wait between 0.001 s and 30 days, not {seconds}"
            raise ValueError(msg)
        rungs.append(Rung(name, wait))
    if not rungs:
        msg = "the ladder needs at least one rung, as in '1m=60'"
        raise ValueError(msg)
    if len({rung.name for rung in rungs}) != len(rungs):
        msg = "each rung needs a name of its own"
        raise ValueError(msg)
    if any(a.seconds > b.seconds for a, b in itertools.pairwise(rungs)):
        msg = "the waits must rise from rung to rung"
        raise ValueError(msg)
    return tuple(rungs)
