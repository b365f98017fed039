"""``/v1/pauses``: stop tasks of a type, a principal, a concurrency key, or all of them, and let them go on. For operators."""

from __future__ import annotations

import time
from typing import Any

from flask import Response

from dispatch.config import api_keys as keys
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol import pauses
from dispatch.protocol.pauses import Pause
from dispatch.store.pauses import HeldTasks, Pauses


class PauseViews:
    """The operations on pauses.

    Args:
        store: the pauses.
        held: what they hold.
    """

    def __init__(self, store: Pauses, held: HeldTasks) -> None:
        self._store = store
        self._held = held

    @operation(
        Operation(
            "GET", "/v1/pauses", "listPauses", "Operators", "What is paused, and how many tasks that holds",
            (ResponseSpec(200, "Every pause, by its name.", response_models.PauseListModel, ("Cache-Control",)),),
            scope=keys.TASKS_CONTROL,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Every pause."""
        found = self._store.all()
        counts = self._held.counts([pause.what for pause in found])
        return json_reply({"items": [{**pause.to_json(), "held": counts[pause.what]} for pause in found]})

    @operation(
        Operation(
            "PUT", "/v1/pauses/{what}", "pauseTasks", "Operators", "Pause tasks",
            (ResponseSpec(200, "The workers know of it within two seconds.", response_models.PauseModel),),
            scope=keys.TASKS_CONTROL,
            audited=True,
            description="`what` is `all`, `type:<task type>`, `principal:<id>`, `key:<concurrency key>` or `lane:<lane>`. What runs goes on; what would start "
            "is HELD, and uses up no attempt; of a lane (`default`, or one of `DISPATCH_LANES`) it stays in its queue, where it may expire. "
            "A pause of the same is replaced.",
            body=request_models.PauseBody,
        )
    )  # fmt: skip
    def put(self, what: str) -> Reply:
        """Pause."""
        pause = begin(self._store, what, validation.parse(request_models.PauseBody, validation.read_object()))
        return json_reply(self._shown(pause))

    @operation(
        Operation(
            "DELETE", "/v1/pauses/{what}", "resumeTasks", "Operators", "End a pause",
            (ResponseSpec(204, "The workers send what was held, at `DISPATCH_RESUME_RATE` tasks a second."),),
            scope=keys.TASKS_CONTROL,
            audited=True,
            problems=("pause-not-found",),
        )
    )  # fmt: skip
    def delete(self, what: str) -> Response:
        """Resume."""
        end(self._store, what)
        return Response(status=204)

    def _shown(self, pause: Pause) -> dict[str, Any]:
        return {**pause.to_json(), "held": self._held.counts([pause.what])[pause.what]}


def begin(store: Pauses, what: str, order: request_models.PauseBody) -> Pause:
    """Pause, for the principal of the current request.

    Args:
        store: the pauses.
        what: see `dispatch.protocol.pauses.WHAT`.
        order: why, and until when.

    Raises:
        Problem: 422.
    """
    checked, now = _checked(what), time.time()
    lane = checked.removeprefix(pauses.LANE)
    if lane != checked and lane not in context.current().site.lanes.queues:
        raise validation.invalid(FieldError("/path/what", "There is no lane of that name.", "no_such_lane"))
    until = None if order.until is None else int(order.until.timestamp() * 1_000)
    if until is not None and until <= now * 1_000:
        raise validation.invalid(FieldError("/until", "The time should be in the future.", "not_in_the_future"))
    pause = Pause(checked, order.reason, context.principal().id, int(now * 1_000), until)
    request = context.current()
    request.details = {**request.details, "reason": order.reason, "until": pause.to_json()["until"]}
    store.put(pause)
    return pause


def end(store: Pauses, what: str) -> None:
    """End a pause, for the principal of the current request.

    Args:
        store: the pauses.
        what: see `dispatch.protocol.pauses.WHAT`.

    Raises:
        Problem: 404, 422.
    """
    if not store.remove(_checked(what)):
        raise Problem("pause-not-found")


def _checked(what: str) -> str:
    context.current().target = what
    if not pauses.is_what(what):
        text = "It should be all, type:<task type>, principal:<id>, key:<concurrency key> or lane:<lane>."
        raise validation.invalid(FieldError("/path/what", text, "invalid_what"))
    return what
