"""Operators: each has a hand of its own, and uses its verbs at random times on whatever is there.

::

    tasks.py         cancel, retry now, signal
    pauses.py        pause and resume types, keys, everything
    schedules.py     put, pause, resume, run now, delete
    dead_letters.py  redrive as it was, mended, fresh, by group; discard
    jobs.py          verbs on what a filter matches; stop

What an operator has begun it ends when it is stopped: pauses are ended, schedules deleted.
"""

from __future__ import annotations

from support.chaos.caller import Caller, Notes
from support.chaos.operators.base import Operator
from support.chaos.operators.dead_letters import Redriver
from support.chaos.operators.jobs import JobStarter
from support.chaos.operators.pauses import Pauser
from support.chaos.operators.schedules import Scheduler
from support.chaos.operators.tasks import Canceller, Hurrier, Signaller
from support.chaos.orders import Book

_EVERY: tuple[type[Operator], ...] = (Canceller, Hurrier, Signaller, Redriver, Pauser, JobStarter, Scheduler)


def operators(url: str, book: Book, seed: int, notes: Notes) -> list[Operator]:
    """One of each.

    Args:
        url: the gateway's.
        book: where effects land.
        seed: of the run.
        notes: where they write.
    """
    return [each(Caller(url, notes), book, seed, notes) for each in _EVERY]
