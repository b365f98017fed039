"""``celery -A celery_app tasks cancel | retry-now``: verbs on one task; `dispatch.cli.jobs` has those on many.

They read and write Redis and RabbitMQ themselves, so they work while no gateway runs.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from dispatch.broker.publisher import Publisher
from dispatch.cli import acts
from dispatch.cli.output import NOT_DONE, as_json_option, echo_json, environment, operator, reported
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask, VerbRefused
from dispatch.control.send_now import SendNow
from dispatch.control.service import ControlService
from dispatch.errors import PublishError
from dispatch.protocol import audit
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.record import Record
from dispatch.store.audit import AuditLog
from dispatch.store.cancellations import Cancellations
from dispatch.store.handovers import Handovers
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.registry import undoing

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 2.0

_SLUGS = {TaskTerminal: "task-terminal", NotWaiting: "not-waiting", UnknownTask: "task-not-found"}


class _Control(NamedTuple):
    service: ControlService
    log: AuditLog


@contextlib.contextmanager
def _connected() -> Iterator[_Control]:
    settings, types, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    publisher = Publisher(settings.address("replay"), timeout=settings.publish_timeout, keys=settings.signing)
    tasks = TaskStore(redis, settings)
    sender = SendNow(tasks, Handovers(redis), publisher, settings.sealing)
    try:
        service = ControlService(tasks, Cancellations(redis, settings, undoing(types.values())), sender)
        yield _Control(service, AuditLog(redis, settings, lines=False))
    finally:
        publisher.close()
        redis.close()


_name = click.option("--as", "name", metavar="NAME", help="Who you are, for the audit log.")


def _on_one(verb: str, task_id: str, name: str | None, act: Callable[[_Control, str], Record]) -> Record:
    """Do a verb to one task, with its entry in the audit log; ends the command where it does not apply."""
    by = operator(name)
    with _connected() as control:
        result, record, refusal = audit.OK, None, ""
        try:
            record = act(control, by)
        except (VerbRefused, UnknownTask) as exc:
            result, refusal = _SLUGS[type(exc)], str(exc)
        except PublishError as exc:
            result, refusal = "publish-unconfirmed", f"it is recorded, and sent as soon as RabbitMQ takes it: {exc}"
        acts.record(control.log, AuditEntry(by, verb, task_id, result, client=socket.gethostname()))
    if record is None:
        click.echo(f"{task_id}: {refusal}", err=True)
        raise SystemExit(NOT_DONE)
    return record


def _shown(record: Record, *, as_json: bool) -> None:
    if as_json:
        echo_json(record.to_json())
    else:
        asked = ", asked to stop" if record.cancel_requested and not record.state.terminal else ""
        click.echo(f"{record.task_id} is {record.state.value}{asked}")


@click.command("cancel")
@click.argument("task_id")
@_name
@as_json_option
@reported("tasks")
def cancel(task_id: str, name: str | None, as_json: bool) -> None:
    """Cancel a task: at once, or, where it runs, its handler is asked to stop."""
    record = _on_one(audit.CANCEL_TASK, task_id, name, lambda control, by: control.service.cancel(task_id, by=by))
    _shown(record, as_json=as_json)


@click.command("retry-now")
@click.argument("task_id")
@_name
@as_json_option
@reported("tasks")
def retry_now(task_id: str, name: str | None, as_json: bool) -> None:
    """End a task's wait on a rung or in the delay levels."""
    record = _on_one(audit.RETRY_TASK_NOW, task_id, name, lambda control, by: control.service.retry_now(task_id, by=by))
    _shown(record, as_json=as_json)
