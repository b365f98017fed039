"""Celery's prefork pool, with the file descriptors of a dead child's pipes removed from its indexes.

When a child dies during a task, `AsynPool.destroy_queues` closes its pipes but leaves the descriptor of the result pipe
in its index (Celery 5.7). After the next reconnect the event loop registers every descriptor in the index, which may
belong to another connection by then: it would read that connection's bytes, and busy-loop once that connection is
closed, since a forked child that inherited it keeps it registered (epoll(7), question 6).
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import asynpool, prefork


class Pool(asynpool.AsynPool):
    """The pool of the event loop."""

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


class TaskPool(prefork.TaskPool):
    """The value of ``worker_pool``."""

    Pool = Pool
