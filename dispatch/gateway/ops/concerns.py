"""What needs a hand, by a reading: the worst first. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import urlencode

from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys
from dispatch.gateway.ops.filters import duration
from dispatch.gateway.ops.pulse import Reading
from dispatch.protocol.pauses import ALL, Pause
from dispatch.store.task_counts import OTHERS, TaskCounts

#: Seconds that the oldest message of a work queue may wait, as in the alert RobotWorkWaits.
LONG = 600.0

#: Failed attempts of the last minutes from which on they are named, where they are more than those that went well.
MANY = 10

#: Pauses that are named one by one.
_NAMED = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Concern:
    """Something that needs a hand."""

    level: str  #: ``bad`` or ``warn``
    text: str
    href: str = ""  #: where to see more, and to act


def concerns(reading: Reading, scopes: Collection[str], *, refuses: bool) -> list[Concern]:
    """What needs a hand, as far as scopes permit to know it.

    Args:
        reading: the system.
        scopes: of the viewer.
        refuses: whether the guard refuses new tasks.
    """
    counts = reading.counts.value if api_keys.TASKS_READ_ALL in scopes else None
    paused = (reading.pauses.value or ()) if api_keys.TASKS_CONTROL in scopes else ()
    found = [Concern("bad", failure) for failure in reading.failures.values() if failure]
    if refuses:
        found.append(Concern("bad", "The work queue is over its limit: new tasks are refused with 429.", "/ops/queues"))
    if api_keys.QUEUES_READ in scopes:
        found += _workers(reading)
        found += _queues(reading, [each.what for each in paused])
        found += _failures(reading.recent.value or {}, counts, scopes)
    if counts is not None:
        found += _dead(counts, scopes)
    found += _pauses(paused)
    return sorted(found, key=lambda each: each.level != "bad")


def _workers(reading: Reading) -> Iterator[Concern]:
    if reading.workers.value is not None and not reading.workers.value:
        yield Concern("bad", "No worker has a recent heartbeat: nothing runs.", "/ops/workers")


def _queues(reading: Reading, paused: Collection[str]) -> Iterator[Concern]:
    queues, ages = reading.queues.value or (), reading.ages.value or {}
    drifted = [queue for queue in queues if queue.drift]
    if drifted:
        more = f" (and {len(drifted) - 1} more)" if len(drifted) > 1 else ""
        yield Concern("bad", f"Drift from the broker map: {drifted[0].drift[0]}{more}", "/ops/queues")
    for queue in queues:
        if queue.role == "work" and queue.ready and f"lane:{queue.lane}" not in paused and ALL not in paused:
            yield from _waits(queue, ages.get(queue.name, 0.0))


def _waits(queue: QueueView, age: float) -> Iterator[Concern]:
    if not queue.consumers:
        yield Concern("bad", f"{queue.ready:,} messages wait in {queue.name}, which has no consumer.", "/ops/queues")
    elif age > LONG:
        text = f"The oldest message in {queue.name} has waited for {duration(age)}: there are too few workers, or they are busy."
        yield Concern("warn", text, "/ops/workers")


def _failures(recent: Mapping[str, int], counts: TaskCounts | None, scopes: Collection[str]) -> Iterator[Concern]:
    """More attempts that fail than go well: as a rule another system is down, often long before there are dead letters."""
    failed, dead, good = (recent.get(name, 0) for name in ("failed", "dead", "succeeded"))
    bad = failed + dead
    if bad < MANY or bad <= good:
        return
    text = f"{bad:,} of {bad + good:,} attempts of the last five minutes failed"
    most, waiting = _waiting_most(counts)
    if dead > failed:
        yield Concern("bad", f"{text}, {dead:,} of them for good.", _letters(scopes))
    elif waiting:
        href = f"/ops/tasks?{urlencode({'state': 'RETRY_WAIT', 'type': most})}"
        yield Concern("bad", f"{text}; most of those that wait for another are {most} ({waiting:,}).", href)
    else:
        yield Concern("bad", f"{text}.")


def _waiting_most(counts: TaskCounts | None) -> tuple[str, int]:
    """The type of which the most tasks wait for their next attempt, and how many do."""
    by_type = {} if counts is None else counts.by_type
    waiting = {name: states.get("RETRY_WAIT", 0) for name, states in by_type.items() if name != OTHERS}
    return max(waiting.items(), key=lambda each: each[1], default=("", 0))


def _letters(scopes: Collection[str]) -> str:
    """The page of the dead letters that a viewer may open; empty for none."""
    if api_keys.DEADLETTERS_READ in scopes:
        return "/ops/dead-letters"
    return "/ops/tasks?state=DEAD_LETTERED" if api_keys.TASKS_READ_ALL in scopes else ""


def _dead(counts: TaskCounts, scopes: Collection[str]) -> Iterator[Concern]:
    if dead := sum(counts.dead_letters.values()):
        text = f"{dead:,} dead {'letter waits' if dead == 1 else 'letters wait'} for a decision."
        yield Concern("warn", text, _letters(scopes))


def _pauses(pauses: Sequence[Pause]) -> Iterator[Concern]:
    for pause in pauses[:_NAMED]:
        until = f", until {clock(pause.until)}" if pause.until else ""
        yield Concern("warn", f"{_name(pause.what)} is paused by {pause.by}{until}: {pause.reason}", "/ops/pauses")
    if len(pauses) > _NAMED:
        yield Concern("warn", f"{len(pauses) - _NAMED} more are paused.", "/ops/pauses")


def _name(what: str) -> str:
    return "Everything" if what == ALL else what


def clock(at: float) -> str:
    """A time of day, UTC, of epoch milliseconds."""
    return dt.datetime.fromtimestamp(at / 1_000, dt.UTC).strftime("%H:%M UTC")
