"""Celery's prefork pool, with the numbers of a dead child's pipes forgotten.

A child that dies in the middle of a task takes its pipes with it: `AsynPool.destroy_queues` closes them, but leaves
the number of the result pipe in its index (Celery 5.7). After the next reconnect the event loop listens to every
number in there, whatever connection has it by then: it would read another connection's bytes, and run in circles once
that one is closed, since a forked child that inherited it keeps it in the kernel's list (epoll(7), question 6).
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork


class Pool(asynpool.AsynPool):
    """The pool of an event loop."""

    def destroy_queues(self, queues: Any, proc: Any) -> Any:
        """Close a dead child's pipes."""
        destroyed = super().destroy_queues(queues, proc)
        for index, number in (
            (self._fileno_to_inq, proc.inqW_fd),
            (self._fileno_to_outq, proc.outqR_fd),
            (self._fileno_to_synq, proc.synqW_fd),
        ):
            if index.get(number) is proc:  # otherwise a new child has it already
                del index[number]
        return destroyed


class TaskPool(prefork.TaskPool):
    """What ``worker_pool`` names."""

    Pool = Pool
