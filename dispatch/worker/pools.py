"""Which pool a worker has, what is refused with it, and what follows from its size. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from celery.concurrency import get_implementation

from dispatch.config.settings import Settings
from dispatch.errors import ConfigurationError
from dispatch.tasktypes.registry import TaskType
from dispatch.worker.prefork import TaskPool
from dispatch.worker.remote_control import SETTING
from dispatch.worker.threads.pool import ThreadPool

#: Options of ``celery worker`` that mean a process of each run's own, and what to use with threads.
_OF_PROCESSES = {
    "autoscale": "idle threads cost next to nothing: give their number by --concurrency or DISPATCH_WORKER_THREADS",
    "max_tasks_per_child": "there is no child to replace; the worker's memory is limited from outside",
    "max_memory_per_child": "there is no child to replace; the worker's memory is limited from outside",
}

#: Remote-control commands that need processes.
_CONTROL_OF_PROCESSES = ("autoscale", "pool_grow", "pool_restart", "pool_shrink", "terminate")


@dataclasses.dataclass(frozen=True, slots=True)
class PoolPlan:
    """The pool of a worker."""

    threads: bool  #: rather than processes
    slots: int  #: tasks that it runs at once, at the least
    prefetch: int  #: messages that it holds unacked at most
    most: int  #: tasks that it runs at once at most

    @property
    def unit(self) -> str:
        """What its slots are."""
        return "threads" if self.threads else "processes"


def plan(options: Mapping[str, Any], settings: Settings) -> PoolPlan:
    """The pool that a command line asks for.

    Args:
        options: of ``celery worker``.
        settings: the worker's.

    Raises:
        ConfigurationError: a pool of another kind, an option that loses tasks, or one that the pool can't have.
    """
    if options.get("purge"):
        raise ConfigurationError("--purge is refused: what waits in the queue has been accepted")
    pool = options.get("pool_cls") or options.get("pool") or TaskPool
    implementation = pool if isinstance(pool, type) else get_implementation(pool)
    if pool == "prefork" or issubclass(implementation, TaskPool):
        return PoolPlan(
            threads=False,
            slots=settings.concurrency_min,
            prefetch=settings.prefetch,
            most=_most_processes(options, settings),
        )
    if not issubclass(implementation, ThreadPool):
        raise ConfigurationError(
            "--pool is refused: hand-overs, leases, time limits and shutdown need the prefork pool, which is the default, or "
            "--pool=threads, for handlers that wait for others most of their time"
        )
    return _threads(options, settings)


def _most_processes(options: Mapping[str, Any], settings: Settings) -> int:
    """As ``--autoscale`` or ``--concurrency`` have it."""
    most = options.get("autoscale") or options.get("concurrency") or settings.concurrency_max
    if isinstance(most, str):
        most = most.partition(",")[0]
    if isinstance(most, tuple | list):
        most = most[0]
    return int(most) if str(most).isdecimal() and int(most) else settings.concurrency_max


def _threads(options: Mapping[str, Any], settings: Settings) -> PoolPlan:
    for option, instead in _OF_PROCESSES.items():
        if options.get(option):
            raise ConfigurationError(f"--{option.replace('_', '-')} is refused with --pool=threads: {instead}")
    if useless := sorted(set(settings.control_commands).intersection(_CONTROL_OF_PROCESSES)):
        raise ConfigurationError(
            f"{SETTING}: {', '.join(useless)} can't work with --pool=threads, which has no processes"
        )
    slots = options.get("concurrency") or settings.worker_threads
    if not isinstance(slots, int):
        raise ConfigurationError(
            f"--concurrency={slots} is refused with --pool=threads: it counts processors, and threads wait"
        )
    return PoolPlan(threads=True, slots=slots, prefetch=max(settings.prefetch, slots), most=slots)


def check_time_limits(types: Mapping[str, TaskType], settings: Settings, pool: PoolPlan) -> None:
    """Refuse task types that could outlast what the broker waits for an ack.

    A prefetched message is unacked while all before it run: the hard limit, times the prefetch, by the least number
    of slots. RabbitMQ closes a channel whose consumer takes longer than `consumer_timeout`; and a message that is
    older than the queue's TTL when it is requeued goes straight to the DLQ.

    Raises:
        ConfigurationError: every type that is too slow.
    """
    turns = pool.prefetch / pool.slots
    longest = min(settings.consumer_timeout / 2 / turns, settings.queue_ttl / 2)
    slow = [f"{each.name} ({each.time_limit:g} s)" for each in types.values() if each.time_limit > longest]
    if slow:
        raise ConfigurationError(
            f"time limits must not exceed {longest:g} s, so that {pool.prefetch} prefetched tasks on "
            f"{pool.slots} {pool.unit} end within half of DISPATCH_CONSUMER_TIMEOUT and none outlasts half "
            f"of DISPATCH_QUEUE_TTL: {', '.join(slow)}"
        )
