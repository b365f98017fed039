"""End a task's wait: a copy of the next seq goes to the work queue, and the copy that waits comes back STALE.

The order is that of every hand-over: record the decision → publish its copy, confirmed → hand over. The copy goes to the
task exchange, so each role that may submit tasks may send one now.

Crash windows:

- recorded, not published: a repeated call and the sweeper publish the decided copy; so does a claim of the waiting copy,
  which finds ROUTE;
- published, not handed over: the same, so two copies of that seq exist; the first to be claimed wins, the other is STALE;
- handed over: the waiting copy is STALE.

A worker that dies between its decision and its publish leaves a task that waits without a copy; the copy sent now takes that
one's place: its seq is one higher, so whichever the worker still publishes is STALE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask
from dispatch.crashpoints import reach
from dispatch.protocol import names
from dispatch.protocol.copies import resent_copy
from dispatch.protocol.message import TRACEPARENT, Copy
from dispatch.protocol.record import Record, State
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.store.handovers import Handovers
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import tracing

#: Times that a record is read again which changes between being read and being decided.
_TRIES = 5


class SendNow:
    """Sends tasks that wait to the work queue. Thread-safe.

    Args:
        tasks: reads records.
        handovers: records decisions.
        publisher: may write to the task exchange.
        sealing: of errors in headers.
    """

    def __init__(
        self, tasks: TaskStore, handovers: Handovers, publisher: Publisher, sealing: Sealing = UNSEALED
    ) -> None:
        self._tasks = tasks
        self._handovers = handovers
        self._publisher = publisher
        self._sealing = sealing

    def send(self, task_id: str, states: Collection[State], kind: str, **details: Any) -> Record:
        """End a task's wait; safe to repeat.

        Args:
            task_id: the task.
            states: those in which it may be.
            kind: of the hop.
            details: more about the hop; None is left out.

        Returns:
            The record afterwards.

        Raises:
            UnknownTask: it has no record.
            TaskTerminal: it has ended.
            NotWaiting: it is in another state.
            PublishError: the decision is recorded, and the sweeper publishes its copy later; a repeat tries it now.
            StoreUnavailable: unknown; send it again.
        """
        for _ in range(_TRIES):
            record = require_waiting(task_id, self._tasks.whole(task_id), states)
            copy = resent_copy(record, self._sealing)
            if copy is None:  # its message has lapsed
                raise NotWaiting(record)
            if self.carry_out(record.type, copy, lambda copy: self._decided(copy, states, kind, details)):
                return self._tasks.get(task_id) or record
        raise NotWaiting(record)

    def _decided(self, copy: Copy, states: Collection[State], kind: str, details: dict[str, Any]) -> Copy | None:
        return self._handovers.send_now(copy, states, kind, **details).copy

    def carry_out(self, task_type: str, copy: Copy, decide: Callable[[Copy], Copy | None]) -> bool:
        """Record that a wait is over, publish the copy, hand over.

        Args:
            task_type: the task's.
            copy: the next one, for the work queue.
            decide: records it; returns the decided copy, None when it is not to be sent.

        Returns:
            Whether it was sent.

        Raises:
            PublishError: the decision is recorded, and the sweeper publishes its copy later.
            StoreUnavailable: unknown.
        """
        request = tracing.current()  # of the operator's request, which has a trace of its own
        attributes = tracing.messaging("send", copy.message, names.WORK_QUEUE)
        with tracing.span(
            f"send now {task_type}",
            parent=copy.message.text(TRACEPARENT),
            links=[request.traceparent],
            attributes=attributes,
        ) as span:
            request.link(span.traceparent)
            copy = dataclasses.replace(copy, message=tracing.stamped(copy.message))
            decided = decide(copy)
            if decided is None or decided.exchange != names.TASK_EXCHANGE:
                return False
            reach("send-now.recorded")
            self._publisher.publish(decided.message, decided.exchange, decided.routing_key)
            reach("send-now.published")
            self._handovers.hand_over(decided)
            reach("send-now.handed-over")
            return True


def require_waiting(task_id: str, record: Record | None, states: Collection[State]) -> Record:
    """The record of a task whose wait may be ended.

    Args:
        task_id: the task.
        record: whole; None: there is none.
        states: those in which it may be.

    Raises:
        UnknownTask: it has no record.
        TaskTerminal: it has ended.
        NotWaiting: it is in another state.
    """
    if record is None:
        raise UnknownTask(f"there is no record of task {task_id}")
    if record.state.terminal:
        raise TaskTerminal(record)
    # Recorded and not published yet: a call that was cut off, which this one completes.
    cut_off = record.state is State.QUEUED and record.decision and record.before_redrive is None
    if record.state not in states and not cut_off:
        raise NotWaiting(record)
    return record
