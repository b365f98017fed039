"""The keeper looks at the concurrency keys in use: holders that are gone make room, and those that are called get their copy.

It runs in every worker; each look is safe to repeat. Usually there is nothing to do: a worker gives its keys back itself.
"""

from __future__ import annotations

from dispatch.background import Background
from dispatch.control.key_sender import KeySender
from dispatch.protocol.concurrency import end_of
from dispatch.store.concurrency import LOOK_INTERVAL, ConcurrencyKeys
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import logger

log = logger(__name__)

#: Keys that one step looks at.
BATCH = 100


class KeyKeeper(Background):
    """Looks at keys.

    Args:
        keys: the keys.
        sender: sends those that are called.
        tasks: the records.
    """

    def __init__(self, keys: ConcurrencyKeys, sender: KeySender, tasks: TaskStore) -> None:
        super().__init__("key-keeper", interval=LOOK_INTERVAL / 2)
        self._keys = keys
        self._sender = sender
        self._tasks = tasks

    def step(self) -> float | None:
        """Look at what is due; without a pause while there is more."""
        due = self._keys.due(BATCH)
        for name in due:
            self._look(name)
        return 0.0 if len(due) == BATCH else None

    def _look(self, name: str) -> None:
        self._sender.send(name, self._keys.look(name).unsent)
        view = self._keys.view(name, 1)
        if view is not None and view.holders:
            ids = [task_id for task_id, _ in view.holders]
            for task_id, record in zip(ids, self._tasks.get_many(ids), strict=True):
                if record is not None and record.state.terminal:  # its worker died before it gave the key back
                    log.warning("concurrency key of a task that has ended", key=name, task_id=task_id)
                    unsent = self._keys.release(name, task_id, end_of(record.cycle)).unsent
                    self._sender.send(name, unsent)
        self._keys.looked(view, name)
