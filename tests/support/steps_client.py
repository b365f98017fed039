"""Tasks of the types in `support.steps`, which no process but a worker of that app knows."""

import json
import uuid

from dispatch.protocol import names
from dispatch.protocol.message import PRINCIPAL, Message
from dispatch.protocol.record import Record, State
from support.waiting import eventually
from support.worker import Bench

#: The worker's app, for `running_worker`.
APP = "support.steps"


def send(bench: Bench, type: str = "wait.steps", headers: dict[str, object] | None = None, **payload: object) -> str:
    """Publish a task, sealed and signed as a gateway's; its record comes from its message."""
    task_id = str(uuid.uuid4())
    given = {"task": type, "id": task_id, "retries": 0, PRINCIPAL: "local", **(headers or {})}
    message = Message(json.dumps([[payload], {}, None]).encode(), given, routing_key=names.routing_key(type))
    bench.publisher.publish(bench.settings.sealing.seal(message), names.TASK_EXCHANGE, message.routing_key)
    return task_id


def waiting(bench: Bench, task_id: str, timeout: float = 20) -> Record:
    """The record, once the task waits and its copy is handed over."""

    def waits() -> Record | None:
        record = bench.store.get(task_id)
        return record if record and record.state is State.WAITING and record.decided_seq is None else None

    return eventually(waits, timeout, lambda: f"it waits; it is {bench.store.get(task_id)}")
