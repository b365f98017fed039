"""What happens to a message that passed its checks: a request, its event, and into the line (`dispatch.worker.starter`).

Celery's own strategy also has waits in the worker's memory, rate limits, revokes, and a line in the log for each message; a
worker of ours refuses the first three, and writes one line for each run, at its end; this one at level DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from celery.signals import task_received
from celery.worker import state

from dispatch.telemetry import task_log
from dispatch.worker.request import DeliveryRequest


def strategy(task: Any, app: Any, consumer: Any, **_: Any) -> Callable[..., None]:
    """Celery calls it for each task type after each (re)connect; the value of `DispatchTask.Strategy`."""
    eventer, starter = consumer.event_dispatcher, app.dispatch_worker.starter
    detailed = logging.getLogger("dispatch.task").isEnabledFor(logging.DEBUG)
    common = {
        "app": app,
        "hostname": consumer.hostname,
        "eventer": eventer,
        "task": task,
        "connection_errors": consumer.connection_errors,
    }

    def on_message(message: Any, _body: Any, ack: Any, reject: Any, callbacks: Iterable[Callable[[Any], None]]) -> None:
        request = DeliveryRequest(message, on_ack=ack, on_reject=reject, **common)
        if detailed:
            task_log(request.wire).debug("task received")
        if task_received.receivers:
            task_received.send(sender=consumer, request=request)
        request.send_event(
            "task-received", name=request.name, args=request.argsrepr, kwargs=request.kwargsrepr,
            root_id=request.root_id, parent_id=request.parent_id, retries=request.wire.number("retries"),
            eta=None, expires=None,
        )  # fmt: skip
        state.task_reserved(request)
        for callback in callbacks:
            callback(request)
        starter.add(request)

    return on_message
