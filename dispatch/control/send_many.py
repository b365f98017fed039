"""End the waits of several tasks at once: each step of `dispatch.control.send_now` for all of them in one round trip.

With a Redis that is busy, or a process whose threads wait for each other, a step costs its latency once for all instead of once
for each task. The order is the same for each task: record the decision → publish its copy, confirmed → hand over; and so are
the crash windows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from dispatch.broker.publisher import Publisher
from dispatch.control.refusals import NotWaiting, UnknownTask, VerbRefused
from dispatch.control.send_now import require_waiting
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError
from dispatch.protocol import names
from dispatch.protocol.copies import resent_copy
from dispatch.protocol.message import TRACEPARENT, Copy
from dispatch.protocol.record import Record, State
from dispatch.protocol.sealing import UNSEALED, Sealing
from dispatch.store.handovers import Confirmed, Handovers
from dispatch.store.tasks import TaskStore
from dispatch.telemetry import tracing

#: What became of each task: None, it was sent; otherwise what `dispatch.control.send_now.SendNow.send` would have raised.
Outcomes = dict[str, DispatchError | None]


class SendMany:
    """Sends tasks that wait to the work queue, many at once. Thread-safe.

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

    def send(self, task_ids: Sequence[str], states: Collection[State], kind: str, **details: Any) -> Outcomes:
        """End the waits of tasks; safe to repeat.

        Args:
            task_ids: few enough for their messages to be in memory together.
            states: those in which they may be.
            kind: of the hop.
            details: more about the hop; None is left out.

        Returns:
            What became of each.

        Raises:
            StoreUnavailable: unknown; send all of them again.
        """
        outcomes: Outcomes = {}
        waiting: dict[str, tuple[Record, Copy]] = {}
        for task_id, record in zip(task_ids, self._tasks.wholes(task_ids), strict=True):
            try:
                waiting[task_id] = self._copy(task_id, record, states)
            except (UnknownTask, VerbRefused) as exc:
                outcomes[task_id] = exc
        decided = self._decided(waiting, states, kind, details)
        outcomes |= {task_id: NotWaiting(waiting[task_id][0]) for task_id in waiting.keys() - decided.keys()}
        if not decided:
            return outcomes
        reach("send-now.recorded")
        verdicts = self._publisher.publish_many(list(decided.values()))
        reach("send-now.published")
        outcomes |= dict(zip(decided, verdicts, strict=True))
        self._handovers.hand_over_many(
            [Confirmed(copy) for task_id, copy in decided.items() if outcomes[task_id] is None]
        )
        reach("send-now.handed-over")
        return outcomes

    def _copy(self, task_id: str, record: Record | None, states: Collection[State]) -> tuple[Record, Copy]:
        found = require_waiting(task_id, record, states)
        copy = resent_copy(found, self._sealing)
        if copy is None:  # its message has lapsed
            raise NotWaiting(found)
        attributes = tracing.messaging("send", copy.message, names.WORK_QUEUE)
        parent = copy.message.text(TRACEPARENT)
        with tracing.span(f"send now {found.type}", parent=parent, links=(), attributes=attributes):
            return found, dataclasses.replace(copy, message=tracing.stamped(copy.message))

    def _decided(
        self, waiting: dict[str, tuple[Record, Copy]], states: Collection[State], kind: str, details: dict[str, Any]
    ) -> dict[str, Copy]:
        """The copies to publish, by task; one whose record has changed since it was read has none."""
        if not waiting:
            return {}
        answers = self._handovers.send_now_many([copy for _, copy in waiting.values()], states, kind, **details)
        return {
            task_id: answer.copy
            for task_id, answer in zip(waiting, answers, strict=True)
            if answer.copy is not None and answer.copy.exchange == names.TASK_EXCHANGE
        }
