"""``/v1/tasks/{taskId}/signals/{name}``: end the wait of a task."""

from __future__ import annotations

import json
from typing import Any

from dispatch.config import api_keys
from dispatch.control.signalling import Signaller
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, headers, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import task_access
from dispatch.protocol.waits import MAX_SIGNAL, is_signal
from dispatch.store.signals import NewSignal
from dispatch.store.tasks import TaskStore


class SignalViews:
    """The operations on signals.

    Args:
        tasks: the records.
        signaller: records signals.
        result_ttl: seconds for which a record is retained after its end.
    """

    def __init__(self, tasks: TaskStore, signaller: Signaller, result_ttl: float) -> None:
        self._tasks = tasks
        self._signaller = signaller
        self._result_ttl = result_ttl

    @operation(
        Operation(
            "POST", "/v1/tasks/{taskId}/signals/{name}", "signalTask", "Tasks", "Signal a task",
            (
                ResponseSpec(
                    202, "Recorded; the wait of a task that waits for it is over.", response_models.TaskModel,
                    ("Location", "Idempotent-Replayed"),
                ),
            ),
            scope=api_keys.TASKS_WRITE,
            description="The body, an object of 16 KiB at most or nothing, is the signal's payload; the handler finds it in `ctx.signals`. "
            "A signal that comes before the wait is kept for it. A task has 100 at most. Signals are in Redis alone: if it loses its "
            "data, a wait ends at its time.",
            body=request_models.SignalBody, body_required=False,
            headers=("Idempotency-Key",),
            problems=(
                "task-not-found", "task-expired", "task-terminal", "too-many-signals", "invalid-idempotency-key",
                "idempotency-key-reused",
            ),
        )
    )  # fmt: skip
    def signal(self, task_id: str, name: str) -> Reply:
        """Record a signal."""
        if not is_signal(name):
            text = "A signal's name has 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit."
            raise validation.invalid(FieldError("/path/name", text, "invalid_name"))
        payload = read_payload()
        try:
            key = headers.idempotency_key(context.current().header("HTTP_IDEMPOTENCY_KEY"))
        except headers.InvalidIdempotencyKey as exc:
            raise Problem("invalid-idempotency-key", str(exc)) from exc
        record = task_access.find_own(self._tasks.get, task_id, self._result_ttl)
        signalled = self._signaller.signal(
            record.task_id, NewSignal(name, written(payload), context.principal().id, key)
        )
        body = context.task_json(signalled.record)
        more = {"Idempotent-Replayed": "true"} if signalled.replayed else {}
        return json_reply(body, 202, {"Location": body["statusUrl"], **more})


def read_payload() -> dict[str, Any]:
    """The object in the body of the current request, 16 KiB at most; an empty one where there is no body.

    Raises:
        Problem: 400, 413, 415, 422.
    """
    raw = validation.read_optional_body()
    if len(raw) > MAX_SIGNAL:
        raise Problem("body-too-large", f"A signal has {MAX_SIGNAL} bytes at most.")
    return validation.parse_object(raw)


def written(payload: dict[str, Any]) -> str:
    """A payload as it is recorded: the same for the same object, however it was written."""
    return json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
