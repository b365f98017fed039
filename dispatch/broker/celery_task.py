"""The base class of our Celery tasks: the options it refuses, and the request class that carries a delivery out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Task

from dispatch.broker.celery_producer import CapturingProducer
from dispatch.errors import DispatchError
from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import MAX_TRACEBACK
from dispatch.protocol.retry import AttemptFailed
from dispatch.telemetry import tracing


class Refused(DispatchError):
    """Celery can't do this safely over our queues; see docs/explanation/design-decisions.md."""


#: What Celery would hold in a worker's memory, send through queues that don't exist here, or fire on every attempt.
_REFUSED = {
    "countdown": "a worker would hold the wait in its memory; the retry ladder waits in the broker",
    "eta": "a worker would hold the wait in its memory; the retry ladder waits in the broker",
    "expires": "Celery acks and drops expired messages; the queue's TTL dead-letters them",
    "chord": "a chord fails on its first failed attempt",
    "link_error": "it fires on every failed attempt",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse what loses or doubles work here.

    Raises:
        Refused: an option, or a way to the broker that is not our publisher's.
    """
    for option, why in _REFUSED.items():
        if options.get(option) is not None:
            raise Refused(f"{option} is refused: {why}")
    for option in ("connection", "publisher", "producer"):
        given = options.get(option)
        if given is not None and not isinstance(given, CapturingProducer):
            raise Refused(f"{option} is refused: Celery's producers publish without confirms, and publish twice")


class DispatchTask(Task):
    """A task whose deliveries go through our router; see `dispatch.worker.router`."""

    abstract = True
    Request = "dispatch.worker.request:DeliveryRequest"
    Strategy = "dispatch.worker.strategy:strategy"
    acks_late = True
    reject_on_worker_lost = True
    ignore_result = True
    throws = (AttemptFailed,)
    autoretry_for: tuple[type[BaseException], ...] = ()

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Publish the task; `dispatch.broker.celery_producer.dispatch` is the way in; links of a chain call it by themselves.

        Raises:
            Refused: an option that loses or doubles work here.
        """
        check_options(options)
        options.setdefault("argsrepr", "(…)")
        if options.get("producer") is None:
            options["producer"] = self.app.dispatch_producer()
        options["task_id"] = options.get("task_id") or new_task_id()
        with tracing.publishing(self, options["task_id"]):
            return super().apply_async(args, kwargs, **{**options, **self._way()})

    def _way(self) -> dict[str, Any]:
        """The one way to the work queue, whatever a signature asks for."""
        return {
            "queue": None,
            "exchange": names.TASK_EXCHANGE,
            "routing_key": names.routing_key(self.name),
            "retry": False,
            "mandatory": True,
            "declare": [],
        }

    def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Drop the traceback object; the failure's text has it already, of which a long one is cut.

        Billiard copies each frame with the positions of every byte code (Python 3.11): 150 kB for one failed attempt,
        sent to the main process and held in reference cycles until a full collection, which comes after hundreds.
        """
        del exc, task_id, args, kwargs
        einfo.tb, einfo.traceback = None, einfo.traceback[-MAX_TRACEBACK:]

    def retry(self, *_args: Any, **_options: Any) -> Any:
        """Refused: raise `RetryableError` instead.

        Raises:
            Refused: always.
        """
        raise Refused("self.retry is refused: raise RetryableError, and the copy waits on the ladder")
