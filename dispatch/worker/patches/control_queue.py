"""The queue on which a worker receives `celery inspect` and `celery control`."""

from __future__ import annotations

import secrets
from typing import Any

from celery.app.control import Control
from kombu import Queue
from kombu.pidbox import Mailbox

from dispatch.broker.celery_task import Refused
from dispatch.worker.remote_control import NO_EFFECT, ControlNode, refusal


class FreshMailbox(Mailbox):
    """A mailbox whose queue has another name after each reconnect.

    The queue is exclusive to the connection that declared it. When a node of a cluster dies, its queues stay locked
    until it is back; so do those of a connection that the broker has not closed yet, and those of another worker with
    the same name. With a fixed name the declaration would fail (405) at each reconnect, and the worker would consume no
    task. Commands are broadcast, so the name does not matter.
    """

    node_cls = ControlNode

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._first_declared = False

    def get_queue(self, hostname: str) -> Queue:
        """The queue to declare; the first has the plain name, which the launcher's readiness probe declares passively."""
        queue = super().get_queue(hostname)
        if self._first_declared:
            queue.name = f"{hostname}.{secrets.token_hex(4)}.{self.namespace}.pidbox"
        self._first_declared = True
        return queue


class WorkerControl(Control):
    """Celery's remote control with a `FreshMailbox`."""

    Mailbox = FreshMailbox
    refused = False  #: whether a worker answered an error to the latest command

    def broadcast(self, command: str, *args: Any, **options: Any) -> Any:
        """Send a command to the workers.

        Raises:
            Refused: one that no worker carries out, whatever it is allowed: sent without asking for replies, it would
                look as if it had been.
        """
        if command in NO_EFFECT:
            raise Refused(refusal(command))
        replies = super().broadcast(command, *args, **options)
        answers = [answer for reply in replies or () for answer in reply.values()]
        self.refused = any(isinstance(answer, dict) and "error" in answer for answer in answers)
        return replies

    def purge(self, connection: Any = None) -> int:
        """Refused: Celery acks what it deletes, while the records of these accepted tasks are QUEUED.

        Raises:
            Refused: always.
        """
        del connection
        raise Refused(
            "purge is refused: what waits in the queue has been accepted; `celery dlq discard` ends dead letters"
        )

    discard_all = purge
