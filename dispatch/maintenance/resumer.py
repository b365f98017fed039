"""The resumer sends the tasks whose pause has ended, at a bounded rate.

It runs in every worker; one at a time sends, and when that one dies its lock lapses and another goes on: what is left to do is
what is still listed. A task that is listed and not held any more (its copy came out of the hold queue by itself, or it was
cancelled) leaves the list. Nothing depends on it alone: the hold queue's TTL brings each copy back, too.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence

from dispatch.background import Background
from dispatch.control.refusals import UnknownTask, VerbRefused
from dispatch.control.send_many import SendMany
from dispatch.errors import DispatchError, PublishError, StoreError
from dispatch.protocol.record import State
from dispatch.store.pauses import HeldTasks
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger

log = logger(__name__)

#: Seconds between two looks, and that every worker has had to see the end of a pause.
LOOK_INTERVAL, GRACE = 0.5, 2.5

#: Seconds that the lock lives without being kept.
LOCK_TTL = 5.0

#: Seconds for which a task may be listed before its record is HELD.
SETTLING = 10.0

#: Tasks between two looks at what is paused, and those that are sent at once: their messages are in memory together.
BATCH, TOGETHER = 100, 50

_HELD = (State.HELD,)


class Resumer(Background):
    """Sends what no pause holds any more.

    Args:
        redis: the process's handle.
        send: ends waits.
        paused: what is paused, as this worker knows it.
        rate: tasks a second.
    """

    def __init__(
        self, redis: RedisHandle, send: SendMany, paused: Callable[[], Collection[str]], *, rate: float
    ) -> None:
        super().__init__("resumer", interval=LOOK_INTERVAL)
        self._redis = redis
        self._held = HeldTasks(redis)
        self._send = send
        self._paused = paused
        self._rate = rate
        self._me = secrets.token_hex(8)
        self._over: dict[str, float] = {}  # since when this worker knows that it is not paused

    def step(self) -> None:
        """Send what can be sent within about a second.

        Raises:
            StoreUnavailable: the rest is sent later.
        """
        holders = self._held.holders()
        if not (ended := self._ended(holders)):
            return
        if not self._lock(LOCK_TTL):
            return
        try:
            for what in ended:
                self._resume(what, holders[what])
        finally:
            with contextlib.suppress(StoreError):  # it lapses by itself
                self._lock(0)

    def _ended(self, holders: Collection[str]) -> list[str]:
        """Those whose pause has ended so long ago that no worker holds for it any more."""
        now, paused = time.monotonic(), self._paused()
        self._over = {what: self._over.get(what, now) for what in holders if what not in paused}
        return [what for what, since in self._over.items() if now - since >= GRACE]

    def _resume(self, what: str, last: float) -> None:
        while not self.stopping and what not in self._paused():
            began = time.monotonic()
            entries = self._held.first(what, BATCH)
            if not entries:
                self._held.forget(what, last)
                return
            sent = self.send(what, entries)
            if sent:
                log.info("resumed", what=what, sent=sent)
            if not self._lock(LOCK_TTL):
                return
            if sent is None or len(entries) < BATCH:
                return
            self.pause(max(0.0, len(entries) / self._rate - (time.monotonic() - began)))

    def send(self, what: str, entries: Sequence[tuple[str, float]]) -> int | None:
        """Send tasks that are listed.

        Returns:
            How many were sent; None when the broker takes no more now.
        """
        results: list[bool | None] = []
        for at in range(0, len(entries), TOGETHER):
            results += self._sent(entries[at : at + TOGETHER], what)
        self._held.drop(what, [entry for entry, result in zip(entries, results, strict=True) if result is not None])
        sent = sum(result is True for result in results)
        return None if None in results and not sent else sent

    def _sent(self, entries: Sequence[tuple[str, float]], what: str) -> list[bool | None]:
        """Of each whether it was sent; None when that has to be tried again."""
        try:
            outcomes = self._send.send([task_id for task_id, _ in entries], _HELD, "released", heldBy=what)
        except StoreError as exc:
            log.warning("not resumed yet", what=what, reason=f"{type(exc).__name__}: {exc}")
            return [None] * len(entries)
        return [self._verdict(task_id, since, outcomes[task_id]) for task_id, since in entries]

    def _verdict(self, task_id: str, since: float, outcome: DispatchError | None) -> bool | None:
        match outcome:
            case None:
                return True
            case UnknownTask():  # Redis has lost it: its copy comes out of the hold queue by itself
                return False
            case VerbRefused():
                young = time.time() - since / 1_000 < SETTLING
                return None if young and not outcome.record.state.terminal else False
            case PublishError():
                log.warning("not resumed yet", task_id=task_id, reason=f"{type(outcome).__name__}: {outcome}")
                return None
            case _:
                log.error("not resumed", task_id=task_id, reason=repr(outcome))
                return False

    def _lock(self, seconds: float) -> bool:
        key = self._redis.keys.resuming
        return bool(self._redis.run(self._redis.script("walk_lock", [key], self._me, int(seconds * 1_000)))[0] == "OK")
