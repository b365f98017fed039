"""The verbs that look at the system, and the one for everything that has no name here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_dispatch_client import calls, models
from robot_dispatch_client.calls import Call, items, query, reading, segment
from robot_dispatch_client.verbs import Verbs, verb


class SystemVerbs(Verbs):
    """Task types, queues, workers, counts."""

    @verb
    def task_types(self) -> Call[list[models.TaskType]]:
        """What can be submitted."""
        return items("/v1/task-types", models.TaskType)

    @verb
    def task_type(self, name: str) -> Call[models.TaskType]:
        """One task type, with the schema of its payload."""
        return Call("GET", f"/v1/task-types/{segment(name)}", reading(models.TaskType))

    @verb
    def queues(self) -> Call[list[models.Queue]]:
        """The queues of the broker."""
        return items("/v1/queues", models.Queue)

    @verb
    def queue(self, name: str) -> Call[models.Queue]:
        """One queue."""
        return Call("GET", f"/v1/queues/{segment(name)}", reading(models.Queue))

    @verb
    def workers(self) -> Call[list[models.Worker]]:
        """The workers with a recent heartbeat."""
        return items("/v1/workers", models.Worker)

    @verb
    def stats(self, principal: str | None = None) -> Call[models.Stats]:
        """How many tasks there are; with ``*`` of all principals (scope `tasks:read-all`)."""
        return Call("GET", "/v1/stats", reading(models.Stats), params=query({"principal": principal}))

    @verb
    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        idempotency_key: str | None = None,
    ) -> Call[Any]:
        """Any operation of the API, also one that this version has no name for; its JSON."""
        return calls.anything(method, path, params, body, idempotency_key)
