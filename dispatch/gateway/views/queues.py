"""``/v1/queues``: the queues and what waits in them, for operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dispatch.broker.management import ManagementUnavailable
from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys as keys
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply


class QueueViews:
    """The operations on queues.

    Args:
        snapshot: every queue as RabbitMQ's management API shows it, within 3 s.
        guard: has the depth to the second.
    """

    def __init__(self, snapshot: Callable[[], Sequence[QueueView]], guard: Guard) -> None:
        self._snapshot = snapshot
        self._guard = guard

    @operation(
        Operation(
            "GET", "/v1/queues", "listQueues", "Queues", "The queues of the broker map",
            (ResponseSpec(200, "Every queue; the numbers are some seconds old, see `asOf`.", response_models.QueueListModel, ("Cache-Control",)),),
            scope=keys.QUEUES_READ,
            problems=("broker-unavailable",),
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every queue, in the map's order."""
        return json_reply({"items": [self._shown(queue) for queue in self._read()]})

    @operation(
        Operation(
            "GET", "/v1/queues/{name}", "getQueue", "Queues", "One queue",
            (ResponseSpec(200, "The queue.", response_models.QueueModel, ("Cache-Control",)),),
            scope=keys.QUEUES_READ,
            problems=("not-found", "broker-unavailable"),
        )
    )  # fmt: skip
    def get(self, name: str) -> Reply:
        """One queue."""
        for queue in self._read():
            if queue.name == name:
                return json_reply(self._shown(queue))
        raise Problem("not-found", "There is no queue of that name. See /v1/queues.")

    def _shown(self, queue: QueueView) -> dict[str, Any]:
        body = queue.to_json()
        return {
            **body,
            "guard": body["guard"] and {**body["guard"], "refusing": self._guard.of_queue(queue.name).full()},
        }

    def _read(self) -> Sequence[QueueView]:
        try:
            return self._snapshot()
        except ManagementUnavailable as exc:
            raise Problem("broker-unavailable", "RabbitMQ's management API did not answer.", retry_after=2) from exc
