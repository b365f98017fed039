"""The keeper calls the tasks that wait for the rate of their type, when places are free: each gets its copy in the work queue.

It runs in every worker whose types have rates; at any time one worker calls for a rate, see `dispatch.store.rates`. While nothing
waits, a look at a rate is one command in two seconds.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable

from dispatch.background import Background
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.control.send_many import SendMany
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

_HELD = (State.HELD,)


class RateKeeper(Background):
    """Calls what waits for rates.

    Args:
        rates: the rates in Redis.
        limits: those of the task types.
        send: ends the waits of tasks.
        paused: what is paused, as this worker knows it: of a paused type none is called.
    """

    def __init__(
        self, rates: Rates, limits: Iterable[RateLimit], send: SendMany, paused: Callable[[], Collection[str]]
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
        failed: DispatchError | None = None
        for limit in self._take_due():
            try:
                pause = self._look(limit)
            except DispatchError as exc:  # the others are looked at all the same
                failed = exc
                continue
            with self._lock:  # unless a task has come to wait for it meanwhile
                self._due[limit] = min(self._due[limit], time.monotonic() + pause)
        if failed is not None:
            raise failed
        with self._lock:
            first = min(self._due.values(), default=math.inf)
        return min(self._interval, max(0.0, first - time.monotonic()))

    def _take_due(self) -> list[RateLimit]:
        with self._lock:
            now = time.monotonic()
            due = [limit for limit, at in self._due.items() if at <= now]
            self._due.update(dict.fromkeys(due, now + LOOK_INTERVAL))  # also where this step ends in an error
        return due

    def _look(self, limit: RateLimit) -> float:
        if pauses.ALL in (paused := self._paused()) or f"type:{limit.type}" in paused:
            return LOOK_INTERVAL
        look = self.rates.look(limit, self._me)
        if look.unsent:
            reach("rate.called")
            if not self._send_all(limit, look.unsent):
                return LOOK_INTERVAL
        return LOOK_INTERVAL if look.pause is None else max(LEAST_PAUSE, look.pause)

    def _send_all(self, limit: RateLimit, task_ids: tuple[str, ...]) -> bool:
        """Send called tasks; whether all are settled. What could not be sent is called still, and sent at a later look."""
        outcomes = self._send.send(task_ids, _HELD, "released", heldBy=limit.name)
        reach("rate.sent")
        sent, gone = list[str](), list[str]()
        for task_id, outcome in outcomes.items():
            match outcome:
                case None:
                    sent.append(task_id)
                case NotWaiting() if outcome.record.state is not State.HELD:  # a copy of it is under way already
                    sent.append(task_id)
                case UnknownTask() | TaskTerminal():
                    gone.append(task_id)
                case NotWaiting() if outcome.record.message is None:  # it has lapsed
                    gone.append(task_id)
                case _:
                    log.warning("waiting task not sent yet", rate=limit.name, task_id=task_id, reason=repr(outcome))
        self.rates.sent(limit, sent)
        for task_id in gone:
            self.rates.drop(limit, task_id)
        return len(sent) + len(gone) == len(task_ids)
