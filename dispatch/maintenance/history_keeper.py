"""Adds what this worker has done to the minutes of `dispatch.store.history`: from the counts of its metrics, off every task's way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dispatch.background import Background
from dispatch.protocol import figures
from dispatch.store.history import MINUTE, History
from dispatch.telemetry import metrics

#: Seconds between two writes.
INTERVAL = 10.0


class HistoryKeeper(Background):
    """Writes the differences; what Redis does not take is written with the next minute that it does.

    Args:
        history: the minutes.
        totals: the counts since this process began.
        clock: epoch seconds.
    """

    def __init__(
        self, history: History, totals: Callable[[], Mapping[str, int]], clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__("history-keeper", interval=INTERVAL)
        self._history, self._totals, self._clock = history, totals, clock
        self._written = dict(totals())

    def step(self) -> None:
        """Write what has been added."""
        totals = self._totals()
        added = {name: count - self._written.get(name, 0) for name, count in totals.items()}
        self._history.add(int(self._clock() // MINUTE), added)
        self._written = dict(totals)

    def finish(self) -> None:
        """The rest, as far as Redis answers."""
        self._try_step()


def totals() -> dict[str, int]:
    """The counts of this worker, by the names of `dispatch.protocol.figures`."""
    counted = {figures.OUTCOMES[outcome]: 0 for outcome in figures.OUTCOMES}
    for (_, outcome), count in metrics.ATTEMPTS.totals().items():
        name = figures.OUTCOMES.get(outcome)
        if name is not None:
            counted[name] += int(count)
    return (
        counted
        | figures.named(figures.RUN, metrics.DURATION.buckets())
        | figures.named(figures.WAIT, metrics.QUEUE_TIME.buckets())
    )
