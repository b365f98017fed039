"""The keeper calls the tasks that wait for the rate of their type, when places are free: each gets its copy in the work queue.

It runs in every worker whose types have rates; at any time one worker calls for a rate, see `dispatch.store.rates`. While nothing
waits, a look at a rate is one command in two seconds.
"""

from __future__ import annotations

import concurrent.futures
import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from dispatch.background import Background
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.control.send_now import SendNow
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError
from dispatch.protocol import pauses
from dispatch.protocol.rates import RateLimit
from dispatch.protocol.record import State
from dispatch.store.rates import LOOK_INTERVAL, Rates
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds between two looks at least: places that get free within them are filled together.
LEAST_PAUSE = 0.02

#: Threads that send.
SENDERS = 8

_HELD = (State.HELD,)


class RateKeeper(Background):
    """Calls what waits for rates.

    Args:
        rates: the rates in Redis.
        limits: those of the task types.
        send: ends a task's wait.
        paused: what is paused, as this worker knows it: of a paused type none is called.
    """

    def __init__(
        self, rates: Rates, limits: Iterable[RateLimit], send: SendNow, paused: Callable[[], Collection[str]]
    ) -> None:
        super().__init__("rate-keeper", interval=LOOK_INTERVAL)
        self.rates = rates
        self._send = send
        self._paused = paused
        self._me = secrets.token_hex(8)
        self._due = dict.fromkeys(limits, 0.0)  # when to look next, of `time.monotonic`
        self._lock = threading.Lock()

    def look_at(self, limit: RateLimit) -> None:
        """Look at a rate at once: a task waits for it."""
        with self._lock:
            self._due[limit] = 0.0
        self.wake()

    def step(self) -> float | None:
        """Look at the rates that are due.

        Returns:
            Seconds until the next one is.

        Raises:
            StoreUnavailable: they are looked at later.
        """
        for limit in self._take_due():
            pause = self._look(limit)
            with self._lock:
                self._due[limit] = min(self._due[limit], time.monotonic() + pause)
        with self._lock:
            first = min(self._due.values(), default=math.inf)
        return min(self._interval, max(0.0, first - time.monotonic()))

    def _take_due(self) -> list[RateLimit]:
        with self._lock:
            now = time.monotonic()
            due = [limit for limit, at in self._due.items() if at <= now]
            self._due.update(dict.fromkeys(due, math.inf))  # what is asked for from now on is a look of its own
        return due

    def _look(self, limit: RateLimit) -> float:
        if pauses.ALL in (paused := self._paused()) or f"type:{limit.type}" in paused:
            return LOOK_INTERVAL
        try:
            look = self.rates.look(limit, self._me)
        except DispatchError:
            with self._lock:
                self._due[limit] = time.monotonic() + LOOK_INTERVAL
            raise
        if look.unsent:
            reach("rate.called")
            self._send_all(limit, look.unsent)
        return LOOK_INTERVAL if look.pause is None else max(LEAST_PAUSE, look.pause)

    def _send_all(self, limit: RateLimit, task_ids: Sequence[str]) -> None:
        if len(task_ids) == 1:
            sent = [self._one(limit, task_ids[0])]
        else:
            with concurrent.futures.ThreadPoolExecutor(min(SENDERS, len(task_ids)), "rate-sender") as pool:
                sent = list(pool.map(lambda task_id: self._one(limit, task_id), task_ids))
        reach("rate.sent")
        self.rates.sent(limit, [task_id for task_id, done in zip(task_ids, sent, strict=True) if done])

    def _one(self, limit: RateLimit, task_id: str) -> bool:
        """Send a called task; whether a copy of it is under way. What could not be sent is called again."""
        try:
            self._send.send(task_id, _HELD, "released", heldBy=limit.name)
        except (UnknownTask, TaskTerminal):
            self.rates.drop(limit, task_id)
            return False
        except NotWaiting:  # a copy of it is under way already
            return True
        except DispatchError as exc:
            log.warning("waiting task not sent yet", rate=limit.name, reason=f"{type(exc).__name__}: {exc}")
            return False
        return True
