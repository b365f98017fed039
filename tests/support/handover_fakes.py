"""A stand-in for what records decisions, for unit tests of the worker."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch.protocol import delays
from dispatch.protocol.retry import Decision
from dispatch.store.handovers import Confirmed, Decided, DecisionAnswer, EndedStep, RunEnd
from support.unit_fakes import Failing


class FakeHandovers:
    """Records decisions as the real one answers: the decided copy, or another answer of the test's, for all or once for a task."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, Decision, int]] = []
        self.waits: list[tuple[str, Sequence[str], int, int]] = []
        self.handed_over: list[tuple[str, str, float]] = []
        self.trips: list[tuple[str, int]] = []
        self.answer: Decided | None = None
        self.answers: dict[str, Decided] = {}
        self.failing = Failing()

    def decide_many(self, ends: Sequence[RunEnd]) -> list[Decided]:
        self.trips.append(("decide", len(ends)))
        self.failing()
        return [self._decided(end) for end in ends]

    def _decided(self, end: RunEnd) -> Decided:
        if isinstance(end, EndedStep):
            step, copy = end.next, end.next.copy
            seconds = delays.seconds_of(copy.message.headers)
            self.waits.append((end.ticket.fence, step.until, seconds, end.max_attempts))
        else:
            copy = end.copy
            self.decisions.append((end.ticket.fence, end.decision, end.max_attempts))
        return self.answers.pop(end.message.task_id, None) or self.answer or Decided(DecisionAnswer.OK, copy)

    def hand_over_many(self, confirmed: Sequence[Confirmed]) -> None:
        self.trips.append(("hand over", len(confirmed)))
        self.failing()
        self.handed_over += [(each.copy.queue, each.owner, each.wait) for each in confirmed]
