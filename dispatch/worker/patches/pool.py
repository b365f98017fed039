"""Celery's prefork pool, with a fault mended and with fewer system calls for what children report.

When a child dies during a task, `AsynPool.destroy_queues` closes its pipes but leaves the descriptor of the result pipe
in its index (Celery 5.7). After the next reconnect the event loop registers every descriptor in the index, which may
belong to another connection by then: it would read that connection's bytes, and busy-loop once that connection is
closed, since a forked child that inherited it keeps it registered (epoll(7), question 6).

Celery reads a message of a child in two system calls, and registers the pipe anew after each.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from celery.concurrency import asynpool

from dispatch.worker.child import READ, split


class ResultHandler(asynpool.ResultHandler):
    """Reads what children report."""

    def _recv_message(
        self, add_reader: Callable[..., None], fd: int, callback: Callable[[Any], None], **_: Any
    ) -> Iterator[None]:
        """Handle all messages that have arrived; Celery goes on with the rest of one when the pipe is readable again."""
        data, again = b"", False
        while True:
            try:
                read = os.read(fd, READ)
            except BlockingIOError:
                again = True
                yield
                continue
            if not read:
                raise OSError("a child's pipe ended within a message") if data else EOFError
            messages, data = split(data + read)
            if again and not data:
                add_reader(fd, self.handle_event, fd)
            _each(messages, callback)
            if not data:
                return


def _each(messages: Sequence[bytes], callback: Callable[[Any], None]) -> None:
    """Handle messages; one whose handling raises does not cost those after it."""
    for number, message in enumerate(messages):
        try:
            if loaded := pickle.loads(message):  # noqa: S301 - from a child of ours
                callback(loaded)
        except BaseException:
            _each(messages[number + 1 :], callback)
            raise


class MendedPool(asynpool.AsynPool):
    """Celery's pool."""

    def destroy_queues(self, queues: Any, proc: Any) -> Any:
        """Close a dead child's pipes and remove their descriptors."""
        destroyed = super().destroy_queues(queues, proc)
        for index, descriptor in (
            (self._fileno_to_inq, proc.inqW_fd),
            (self._fileno_to_outq, proc.outqR_fd),
            (self._fileno_to_synq, proc.synqW_fd),
        ):
            if index.get(descriptor) is proc:  # otherwise a new child has reused it
                del index[descriptor]
        return destroyed
