"""The signals of a task: what clients and other systems send to it while it lives. They lie in its record, and go with it.

A wiped Redis loses them: the message of a task carries its checkpoint, and no signals. A wait for one ends at its time.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import json

from dispatch.protocol.message import Copy, compact_json
from dispatch.protocol.waits import MAX_SIGNALS
from dispatch.store.scripts import RedisHandle
from dispatch.store.transitions import checked_soon, hop
from dispatch.tasktypes.waiting import Signal


class SignalAnswer(enum.StrEnum):
    """What became of a signal."""

    KEPT = "KEPT"  #: recorded; the task does not wait for it
    SENT = "SENT"  #: recorded, and the wait is over: publish the decided copy
    REPLAYED = "REPLAYED"  #: recorded before, with this Idempotency-Key; publish the decided copy if there is one
    REUSED = "REUSED"  #: the Idempotency-Key came with another body before
    FULL = "FULL"  #: the task has `MAX_SIGNALS`
    TERMINAL = "TERMINAL"  #: the task has ended
    MISSING = "MISSING"  #: there is no record
    AGAIN = "AGAIN"  #: the task has changed since its record was read; nothing is recorded


@dataclasses.dataclass(frozen=True, slots=True)
class NewSignal:
    """A signal that is to be recorded."""

    name: str
    payload: str  #: JSON
    by: str  #: the principal's id, or how it came
    key: str | None = None  #: Idempotency-Key

    @property
    def key_digest(self) -> str:
        """The key in its scope, which is the principal and the signal."""
        scope = f"{self.by}\n{self.name}\n{self.key}"
        return "" if self.key is None else hashlib.sha256(scope.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """The answer, and the copy to publish."""

    answer: SignalAnswer
    copy: Copy | None = None


class Signals:
    """Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, task_id: str, signal: NewSignal, copy: Copy | None, *, last: bool = False) -> Recorded:
        """Record a signal.

        Args:
            task_id: the task.
            signal: what came.
            copy: the next copy, for the work queue, of a task that waits for it; None of one that was not seen to.
            last: without a copy, it is recorded also where the task waits for it by now.

        Returns:
            What became of it.
        """
        keys, sealing = self._redis.keys, self._redis.sealing
        line = compact_json({"name": signal.name, "payload": sealing.seal_text(signal.payload)})
        digest = hashlib.sha256(signal.payload.encode()).hexdigest()
        message = copy.message if copy else None
        kept, ended = (
            hop("signalled", message, name=signal.name, by=signal.by, queue=queue)
            for queue in (None, copy.queue if copy else None)
        )
        command = self._redis.script(
            "signal", keys.task(task_id),
            signal.name, line, MAX_SIGNALS, signal.key_digest, sealing.fingerprints(digest)[0],
            message.cycle if message else 0, message.seq if message else -int(last),
            copy.to_json() if copy else "", copy.queue if copy else "", kept, ended,
        )  # fmt: skip
        first = [checked_soon(self._redis, task_id)] if copy else []
        answer, *decided = self._redis.run(*first, command)[-1]
        return Recorded(SignalAnswer(answer), Copy.from_json(decided[0]) if decided and decided[0] else None)

    def read(self, task_id: str) -> tuple[Signal, ...]:
        """The signals that a task has had, oldest first."""
        record = self._redis.keys.task(task_id).record
        count = int(self._redis.run(("HGET", record, "signals"))[0] or 0)
        if not count:
            return ()
        lines = self._redis.run(("HMGET", record, *(f"signal:{number}" for number in range(1, count + 1))))[0]
        return tuple(self._signal(json.loads(line)) for line in lines if line)

    def _signal(self, entry: dict[str, str | int]) -> Signal:
        payload = self._redis.sealing.open_json(str(entry["payload"]))
        at = dt.datetime.fromtimestamp(int(entry["at"]) / 1_000, dt.UTC)
        return Signal(str(entry["name"]), payload, at)
