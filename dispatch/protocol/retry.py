"""The retry decision: a failed attempt and the ladder in, the next step out. Pure.

The router carries the decision out; nothing here knows a broker, a clock or Celery.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import re
from collections.abc import Iterable, Sequence

from dispatch.protocol.dead_letters import Reason

#: A rung's name is part of a queue's name and of a header's value.
_RUNG_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

#: The parking place for copies whose first copy still runs; not a rung of the ladder.
LEASE_RUNG = "lease"

#: The parking place for copies that may not run yet, see `dispatch.protocol.holds`; not a rung of the ladder either.
HOLD_RUNG = "hold"


@dataclasses.dataclass(frozen=True, slots=True)
class Rung:
    """One delay queue of the ladder."""

    name: str  #: ends in the queue's name, ``robot.retry.q.<name>``
    seconds: float  #: how long a message waits there; frozen at the queue's declaration


@dataclasses.dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs that a failed task climbs, shortest wait first."""

    rungs: tuple[Rung, ...]

    @property
    def attempts(self) -> int:
        """Attempts a task has: the first one, and one more after each rung."""
        return len(self.rungs) + 1

    def rung(self, name: str | None) -> Rung | None:
        """The rung of a name; None when the ladder has none."""
        return next((rung for rung in self.rungs if rung.name == name), None)

    def subset(self, names: Iterable[str]) -> Ladder:
        """The ladder of a task type that climbs only some rungs.

        Args:
            names: the rungs, in their order.

        Raises:
            ValueError: the rungs that this ladder does not have.
        """
        found = {name: self.rung(name) for name in names}
        if unknown := [name for name, rung in found.items() if rung is None]:
            raise ValueError(f"no rung {', '.join(unknown)} (there are {', '.join(rung.name for rung in self.rungs)})")
        return Ladder(tuple(rung for rung in found.values() if rung is not None))

    def __str__(self) -> str:
        return ",".join(f"{rung.name}={rung.seconds:g}" for rung in self.rungs)


class FailureKind(enum.StrEnum):
    """What sort of failure an attempt ended in."""

    PERMANENT = "permanent"  #: the handler raised `PermanentError`: another attempt can't help
    RETRYABLE = "retryable"  #: the handler, or an unknown exception: the next attempt may help
    THROTTLED = "throttled"  #: the other side is busy: no attempt is used up
    OVERDUE = "overdue"  #: its deadline had passed: no attempt was made
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


class AttemptFailed(Exception):
    """An attempt failed; the arguments are the fields of a `Failure`, so that it survives pickling."""

    @classmethod
    def of(cls, failure: Failure) -> AttemptFailed:
        """Wrap a failure for the way to the main process."""
        return cls(failure.kind.value, failure.type, failure.message, failure.retry_after)

    @property
    def failure(self) -> Failure:
        """The failure."""
        kind, type_, message, retry_after = self.args
        return Failure(FailureKind(kind), type_, message, retry_after)

    def __str__(self) -> str:
        return f"{self.args[1]}: {self.args[2]}"


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

    reason: Reason


Decision = Retry | Park | Dead


def misses(begins: float, expires: float) -> bool:
    """Whether what begins at a time misses a task's deadline: no attempt, and no step after a wait, begins after it.

    Args:
        begins: when it can begin at the earliest, epoch seconds.
        expires: the task's deadline, epoch seconds; infinite without one.
    """
    return begins > expires


def decide(
    failure: Failure, attempt: int, ladder: Ladder, deadline: float, now: float, *, expires: float = math.inf
) -> Decision:
    """Choose what happens after a failed attempt.

    Args:
        failure: how the attempt ended.
        attempt: the attempt that failed, 1-based.
        ladder: of this task type.
        deadline: epoch seconds after which the task may no longer wait without using up attempts.
        now: epoch seconds.
        expires: the task's own deadline, epoch seconds: no attempt begins after it.

    Returns:
        `Retry`, `Park` or `Dead`.
    """
    decision = _decide(failure, attempt, ladder, deadline, now)
    if isinstance(decision, Dead) or not misses(now + decision.rung.seconds, expires):
        return decision
    return Dead(Reason.DEADLINE_EXCEEDED)


def _decide(failure: Failure, attempt: int, ladder: Ladder, deadline: float, now: float) -> Decision:
    if failure.kind is FailureKind.PERMANENT:
        return Dead(Reason.PERMANENT)
    if failure.kind is FailureKind.OVERDUE:
        return Dead(Reason.DEADLINE_EXCEEDED)
    if failure.kind in (FailureKind.THROTTLED, FailureKind.OUTAGE):
        return _park(failure, attempt, ladder.rungs, deadline, now)
    if attempt >= ladder.attempts:
        return Dead(Reason.RETRIES_EXHAUSTED)
    if failure.retry_after is None:
        return Retry(ladder.rungs[attempt - 1])
    rung = _first_long_enough(ladder.rungs, failure.retry_after)
    return Retry(rung) if rung else _park(failure, attempt, ladder.rungs, deadline, now)


def _park(failure: Failure, attempt: int, rungs: Sequence[Rung], deadline: float, now: float) -> Decision:
    if now >= deadline:
        return Dead(Reason.DEADLINE_EXCEEDED)
    if not rungs:
        return Dead(Reason.RETRIES_EXHAUSTED)
    if failure.retry_after is None:
        return Park(rungs[min(attempt, len(rungs)) - 1])
    return Park(_first_long_enough(rungs, failure.retry_after) or rungs[-1])


def _first_long_enough(rungs: Sequence[Rung], seconds: float) -> Rung | None:
    return next((rung for rung in rungs if rung.seconds >= seconds), None)


def parse_ladder(text: str) -> Ladder:
    """Read ``"1m=60,5m=300,30m=1800"``.

    Args:
        text: comma-separated ``name=seconds``.

    Returns:
        The ladder, its rungs in the order given.

    Raises:
        ValueError: a name or a number is not usable, a name is given twice, or the waits don't rise.
    """
    rungs: list[Rung] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, seconds = (piece.strip() for piece in part.partition("="))
        if not _RUNG_NAME.fullmatch(name) or name in {LEASE_RUNG, HOLD_RUNG}:
            msg = f"rung name {name!r} must be lower-case letters, digits and '-', and not 'lease' or 'hold'"
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
    return Ladder(tuple(rungs))
