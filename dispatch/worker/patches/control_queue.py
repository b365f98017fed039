"""Where a worker hears `celery inspect` and `celery control`."""

from __future__ import annotations

import secrets
from typing import Any

from celery.app.control import Control
from kombu import Queue
from kombu.pidbox import Mailbox


class FreshMailbox(Mailbox):
    """A mailbox whose queue has another name after each reconnect.

    The queue is exclusive to the connection that declared it. When a node of a cluster dies, its queues stay locked
    for nobody until it is back; so do those of a connection that the broker has not given up yet, and those of another
    worker with the same name. A worker that insisted on the name would be refused (405) at each reconnect, and take no
    task. Commands reach it under any name: they are broadcast.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._named = False

    def get_queue(self, hostname: str) -> Queue:
        """The queue to declare: the plain name first, by which the launcher knows that a worker is ready."""
        queue = super().get_queue(hostname)
        if self._named:
            queue.name = f"{hostname}.{secrets.token_hex(4)}.{self.namespace}.pidbox"
        self._named = True
        return queue


class WorkerControl(Control):
    """Celery's remote control with that mailbox."""

    Mailbox = FreshMailbox
