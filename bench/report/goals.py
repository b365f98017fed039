"""What is asked of each figure, and whether it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from bench.harness.results import PartResult, ResultRow
from bench.harness.statistics import Spread, paired_ratio
from bench.parts import failures, gateway, growth, latency, system, worker
from bench.parts.base import OURS

#: How figures of CPU time end; those that are part of another, or the client's.
CPU = " CPU µs"
_NOT_ADDED = {f"client{CPU}", f"main process{CPU}"}

_THREADS = f"{OURS}, --pool=threads"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A bound on one figure, or on its ratio to a peer's."""

    part: str
    case: str  #: how the case begins
    figure: str
    floor: float | None = None  #: must be met
    goal: float | None = None  #: should be met
    at_most: bool = False  #: less is better
    variant: str = OURS  #: how its name begins
    against: str = ""  #: the peer; empty for a bound on the figure itself


#: In the order of the table.
GOALS = (
    *(
        Goal(gateway.NAME, f"POST, {connections} connection", "requests/s", floor, against=gateway.PEER)
        for connections, floor in ((1, 0.8), (16, 1.0), (64, 1.0))
    ),
    Goal(gateway.NAME, "POST with a key", "requests/s", 1.0, against=gateway.PEER),
    *(Goal(gateway.NAME, kind, "requests/s", 0.7, against=gateway.PEER) for kind in ("GET", "304")),
    Goal(worker.NAME, worker.CASE, "tasks/s", 1.5, against=worker.CELERY),
    Goal(worker.NAME, worker.CASE, "tasks/s", goal=1.0, against=worker.DRAMATIQ),
    Goal(worker.NAME, worker.CASE, "tasks/s", 1.0, variant=_THREADS, against=worker.DRAMATIQ),
    *(
        Goal(latency.NAME, "20 tasks", f"{what} p{share} ms", 1.5, at_most=True, against=latency.PEER)
        for what in ("start", "SUCCESS")
        for share in (50, 99)
    ),
    Goal(system.NAME, system.HIGHEST, "tasks/s", 600),
    Goal(system.NAME, "100 tasks a second for", "errors", 0, at_most=True),
    Goal(system.NAME, "100 tasks a second for", "POST p95 ms", 7, at_most=True),
    Goal(system.NAME, "100 tasks a second for", "POST p99 ms", 10, at_most=True),
    Goal(growth.NAME, growth.PUBLISH, "requests/s", 0.85, variant="", against=growth.EMPTY),
    Goal(growth.NAME, growth.CONSUME, "tasks/s", 0.85, variant="", against=growth.EMPTY),
    Goal(growth.NAME, growth.TASK_MEMORY, "Redis B", 1_800, at_most=True),
    Goal(growth.NAME, growth.PROCESS_MEMORY, growth.WORKER_PSS, 250, at_most=True),
)

#: Parts without a bound, for the table of contents.
UNBOUNDED = (failures.NAME,)


@dataclasses.dataclass(frozen=True)
class Assessment:
    """A goal in one case that was measured."""

    goal: Goal
    row: ResultRow
    peer: ResultRow | None
    found: Spread  #: of the figure, or of the ratio

    @property
    def per_cpu(self) -> Spread | None:
        """The peer's CPU for an operation as a multiple of ours, servers included: above 1, ours does more with the same."""
        if self.peer is None:
            return None
        ours, theirs = _all_cpu(self.row), _all_cpu(self.peer)
        return paired_ratio(theirs, ours) if ours and theirs else None

    @property
    def met(self) -> bool:
        """Whether the floor is met; without one, the goal."""
        bound = self.goal.floor if self.goal.floor is not None else self.goal.goal
        return bound is None or (self.found.median <= bound if self.goal.at_most else self.found.median >= bound)


def verdicts(results: Mapping[str, PartResult], goals: Iterable[Goal] = GOALS) -> list[Assessment]:
    """Compare what was measured with what is asked.

    Args:
        results: by part; of a part that is missing there is no verdict.
        goals: in the order of the verdicts.
    """
    return [verdict for goal in goals if goal.part in results for verdict in _of(goal, results[goal.part].rows)]


def _is_of(variant: str, wanted: str) -> bool:
    """Any variant if none is wanted; of those with threads, any number of these."""
    return not wanted or variant == wanted or (wanted != OURS and variant.startswith(f"{wanted} "))


def _all_cpu(row: ResultRow) -> list[float]:
    """CPU µs an operation of all programs but the client; a sum a round."""
    named = [values for name, values in row.figures.items() if name.endswith(CPU) and name not in _NOT_ADDED]
    return [sum(values) for values in zip(*named, strict=True)]


def _of(goal: Goal, rows: Sequence[ResultRow]) -> Iterable[Assessment]:
    for row in rows:
        fits = row.case.startswith(goal.case) and goal.figure in row.figures and row.variant != goal.against
        if not fits or not _is_of(row.variant, goal.variant):
            continue
        if not goal.against:
            yield Assessment(goal, row, None, Spread.of(row.figures[goal.figure]))
        for peer in rows:
            if goal.against and (peer.case, peer.variant) == (row.case, goal.against):
                yield Assessment(goal, row, peer, paired_ratio(row.figures[goal.figure], peer.figures[goal.figure]))
