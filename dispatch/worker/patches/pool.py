"""Celery's prefork pool, with a fault mended and with fewer system calls for what children report.

When a child dies during a task, `AsynPool.destroy_queues` closes its pipes but leaves the descriptor of the result pipe
in its index (Celery 5.7). After the next reconnect the event loop registers every descriptor in the index, which may
belong to another connection by then: it would read that connection's bytes, and busy-loop once that connection is
closed, since a forked child that inherited it keeps it registered (epoll(7), question 6).

Celery reads a message of a child in two system calls, and registers the pipe anew after each. What it has read of a message is
in a generator, which the loss of the connection to RabbitMQ drops with the rest of the event loop.
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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun: dict[int, bytes] = {}  #: by descriptor, what has come of a message that is not complete

    def take(self, fd: int) -> bool:
        """Handle all that has arrived in a pipe, also where no event loop reads it: the loss of the connection has reset it.

        Returns:
            Whether more may come: False at the end of the pipe.
        """
        hub = self._hub if self._hub is not None and fd in self._hub.readers else None
        reading = self._recv_message(hub.add_reader if hub else _nothing, fd, self.on_state_change)
        try:
            next(reading)
        except StopIteration:
            return True
        except (OSError, EOFError):
            return False
        if hub is not None:  # as Celery does: what reads the rest is what its shutdown looks for
            hub.add_reader(fd, reading)
        return True

    def _recv_message(
        self, add_reader: Callable[..., None], fd: int, callback: Callable[[Any], None], **_: Any
    ) -> Iterator[None]:
        """Handle all messages that have arrived; Celery goes on with the rest of one when the pipe is readable again."""
        again = False
        while True:
            try:
                read = os.read(fd, READ)
            except BlockingIOError:
                again = True
                yield
                continue
            data = self.begun.pop(fd, b"")
            if not read:
                raise OSError("a child's pipe ended within a message") if data else EOFError
            messages, rest = split(data + read)
            if rest:
                self.begun[fd] = rest
            elif again:
                add_reader(fd, self.handle_event, fd)
            _each(messages, callback)
            if not rest:
                return


def _nothing(*_: Any) -> None:
    """No event loop is to read the pipe."""


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
        if proc.outqR_fd not in self._fileno_to_outq:
            self._result_handler.begun.pop(proc.outqR_fd, None)
        return destroyed
