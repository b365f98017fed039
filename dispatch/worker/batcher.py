"""The worker's transitions of runs: those of one turn of the event loop are one round trip to Redis, on a thread.

The loop never waits for Redis: a silent one must not stop heartbeats, remote control or acks. What comes while a batch is
under way waits for the next one, so batches are as large as Redis is slow.

Crash windows: a step is asked for after what led to it (the delivery, the handler's end), and its answer is acted on by the
loop afterwards; so a worker that dies in between is a worker that dies before or after the transition itself. A connection
that ends in the middle leaves steps carried out without an answer: each is safe to repeat with the same ticket.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.errors import StoreError, StoreUnavailable
from dispatch.protocol.message import TRACEPARENT
from dispatch.store.claims import Claims, RunStep
from dispatch.store.unsynced import Unsynced
from dispatch.telemetry import logger, tracing

log = logger(__name__)

#: Seconds before steps that Redis did not take are tried again; doubles.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0


@dataclasses.dataclass(slots=True)
class Asked:
    """A step that was asked for."""

    step: RunStep
    done: Callable[[Any], None]  #: called on the loop with the answer, or with the `StoreError` that took its place
    until: float  #: of `time.monotonic`: from then on an error is an answer


class Batcher:
    """Carries out steps for the event loop.

    Args:
        claims: on a Redis handle of their own, for which nothing else waits.
        call: calls a function on the loop's thread.
    """

    def __init__(self, claims: Claims, call: Callable[[Callable[[], None]], None]) -> None:
        self._claims = claims
        self._call = call
        self._changed = threading.Condition()
        self._asked: list[Asked] = []  # by the loop, in this turn
        self._pending: list[Asked] = []
        self._under_way = 0
        self._pause = 0.0
        self._stopping = False

    @property
    def unsynced(self) -> Unsynced:
        """What its Redis has acknowledged and may still lose."""
        return self._claims.unsynced

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._work, name="batcher", daemon=True).start()

    def stop(self) -> None:
        """End the thread after its current batch."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def ask(self, step: RunStep, done: Callable[[Any], None], until: float = 0.0) -> None:
        """Have a step carried out after this turn of the loop. For the loop's thread, as `kick` is.

        Args:
            step: the transition.
            done: called on the loop with the answer, or with the `StoreError` that took its place.
            until: of `time.monotonic`: before it a step that Redis did not take is tried again.
        """
        self._asked.append(Asked(step, done, until))

    def kick(self) -> None:
        """End a turn of the loop."""
        if self._asked:
            with self._changed:
                self._pending += self._asked
                self._asked = []
                if not self._under_way:
                    self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether every step was answered that will be; the answers may still wait for the loop."""
        return self._stopping or not (self._asked or self._pending or self._under_way)

    def wait(self, seconds: float) -> None:
        """Wait until a batch has ended."""
        with self._changed:
            if self._pending or self._under_way:
                self._changed.wait(seconds)

    def _work(self) -> None:
        while batch := self._next():
            answers = self._answers(batch)
            answered = [
                (asked, answer)
                for asked, answer in zip(batch, answers, strict=True)
                if not self._worth_it(asked, answer)
            ]
            if answered:
                self._call(functools.partial(_hand_out, answered))
            self._end([asked for asked, answer in zip(batch, answers, strict=True) if self._worth_it(asked, answer)])

    def _next(self) -> list[Asked]:
        with self._changed:
            over = time.monotonic() + self._pause
            while not self._stopping and (not self._pending or (left := over - time.monotonic()) > 0):
                self._changed.wait(left if self._pending else None)
            batch, self._pending = self._pending, []
            self._under_way = len(batch)
            return [] if self._stopping else batch

    def _end(self, again: list[Asked]) -> None:
        with self._changed:
            self._pending = again + self._pending  # completions first: their runs have ended
            self._under_way = 0
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE) if again else 0.0
            self._changed.notify_all()

    def _worth_it(self, asked: Asked, answer: Any) -> bool:
        return isinstance(answer, StoreError) and time.monotonic() + FIRST_PAUSE < asked.until

    def _turn(self, batch: Sequence[Asked]) -> Sequence[Any]:
        began = time.time()
        answers = self._claims.turn([asked.step for asked in batch])
        if tracing.enabled():
            _trace(batch, began)
        return answers

    def _answers(self, batch: Sequence[Asked]) -> Sequence[Any]:
        try:
            return self._turn(batch)
        except StoreUnavailable as exc:
            if len(batch) == 1 or exc.trouble is None or not exc.trouble.refuses:
                return [exc] * len(batch)
        except Exception as exc:
            if len(batch) == 1:
                if not isinstance(exc, StoreError):
                    log.exception("a run's transition failed")
                return [exc if isinstance(exc, StoreError) else StoreError(repr(exc))]
        # One that Redis refuses must not cost the others their answers.
        return [answer for asked in batch for answer in self._answers([asked])]


def _trace(batch: Sequence[Asked], began: float) -> None:
    """The round trip, in the trace of each run."""
    for asked in batch:
        name = asked.step.name
        tracing.record(
            f"redis {name}", began, time.time(),
            parent=tracing.sibling(asked.step.message.text(TRACEPARENT), asked.step.ticket.fence), kind="client",
            attributes={"db.system.name": "redis", "db.operation.name": name, "db.operation.batch.size": len(batch)},
        )  # fmt: skip


def _hand_out(answered: Sequence[tuple[Asked, Any]]) -> None:
    for asked, answer in answered:
        try:
            asked.done(answer)
        except Exception:
            log.exception("what follows a run's transition failed", task_id=asked.step.message.task_id)
