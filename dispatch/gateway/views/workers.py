"""``/v1/workers``: the workers with a recent heartbeat, for operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatch.config import api_keys as keys
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.store.workers import WorkerInfo


class WorkerViews:
    """The operation on workers.

    Args:
        present: the workers with a recent heartbeat.
    """

    def __init__(self, present: Callable[[], Sequence[WorkerInfo]]) -> None:
        self._present = present

    @operation(
        Operation(
            "GET", "/v1/workers", "listWorkers", "Workers", "The workers with a recent heartbeat",
            (ResponseSpec(200, "Every worker, by name.", response_models.WorkerListModel, ("Cache-Control",)),),
            scope=keys.QUEUES_READ,
            description="A worker writes a heartbeat every 3 s; after 15 s of silence it is not listed any more.",
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every worker."""
        return json_reply({"items": [worker.to_json() for worker in self._present()]})
