"""The next tasks of a concurrency key: those that are called get a copy in the work queue."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.control.send_now import SendNow
from dispatch.errors import DispatchError
from dispatch.protocol.record import State
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.telemetry import logger

log = logger(__name__)

_HELD = (State.HELD,)


class KeySender:
    """Sends called tasks. Thread-safe; never raises: what is not sent stays called, and a later look at the key tries it again.

    Args:
        keys: the keys.
        send: ends a task's wait.
    """

    def __init__(self, keys: ConcurrencyKeys, send: SendNow) -> None:
        self._keys = keys
        self._send = send

    def send(self, name: str, task_ids: Iterable[str]) -> None:
        """Send tasks, and in the place of those that have ended the ones after them.

        Args:
            name: the key's.
            task_ids: those that are called.
        """
        waiting, seen = collections.deque(task_ids), set[str]()
        try:
            while waiting:
                task_id = waiting.popleft()
                if task_id not in seen:
                    seen.add(task_id)
                    waiting.extend(self._one(name, task_id))
        except DispatchError as exc:
            log.warning("waiting task not sent yet", key=name, reason=f"{type(exc).__name__}: {exc}")

    def _one(self, name: str, task_id: str) -> tuple[str, ...]:
        try:
            self._send.send(task_id, _HELD, "released", heldBy=name)
        except (UnknownTask, TaskTerminal):
            return self._keys.drop(name, task_id).unsent
        except NotWaiting:  # a copy of it is under way already
            pass
        self._keys.sent(name, task_id)
        return ()
