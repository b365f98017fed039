"""``celery -A celery_app tasks cancel | retry-now | start-job | jobs | job | stop-job``: verbs on one task, and on many.

They read and write Redis and RabbitMQ themselves, so they work while no gateway runs; the workers carry jobs out.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import click

from dispatch.broker.publisher import Publisher
from dispatch.cli import acts
from dispatch.cli.output import NOT_DONE, as_json_option, confirm, counted, echo_json, environment, operator, reported
from dispatch.cli.tables import table, terminal_width
from dispatch.control.refusals import NotWaiting, TaskTerminal, UnknownTask, VerbRefused
from dispatch.control.send_now import SendNow
from dispatch.control.service import ControlService
from dispatch.errors import PublishError
from dispatch.protocol import audit, labels, moments
from dispatch.protocol.audit import AuditEntry, job_target
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import BulkJob, JobVerb
from dispatch.protocol.record import Record, State, Status
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.audit import AuditLog
from dispatch.store.cancellations import Cancellations
from dispatch.store.handovers import Handovers
from dispatch.store.jobs import Jobs
from dispatch.store.scripts import RedisHandle
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.registry import undoing

#: Seconds for each Redis answer, and to count at most.
_REDIS_TIMEOUT, _COUNTING = 2.0, 10.0

_HEADS = ("JOB", "VERB", "STATE", "DONE", "FAILED", "LIMIT", "BY", "FILTER")

_SLUGS = {TaskTerminal: "task-terminal", NotWaiting: "not-waiting", UnknownTask: "task-not-found"}


class _Control(NamedTuple):
    service: ControlService
    jobs: Jobs
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
        yield _Control(service, Jobs(redis), AuditLog(redis, settings, lines=False))
    finally:
        publisher.close()
        redis.close()


class _LabelOption(click.ParamType[tuple[str, str]]):
    """A label of a filter."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        try:
            return labels.pair(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class _At(click.ParamType[int]):
    """A time, as epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else moments.millis(value)
        except ValueError:
            self.fail("an RFC 3339 time: 2026-11-24T02:36:00Z", param, ctx)


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


@click.command("start-job")
@click.argument("verb", type=click.Choice([each.value for each in JobVerb]))
@click.option("--type", "type", metavar="TYPE", help="Only tasks of this type.")
@click.option("--status", type=click.Choice([each.value for each in Status]), help="Only those with this status.")
@click.option("--state", type=click.Choice([each.value for each in State]), help="Only those in this state.")
@click.option("--error-type", metavar="TYPE", help="Only those whose last attempt failed so.")
@click.option("--principal", metavar="ID", help="Only those of this principal.")
@click.option(
    "--label", "pairs", type=_LabelOption(), multiple=True, help="Only those with this label; may be repeated."
)
@click.option("--since", type=_At(), help="Only those accepted at this time or later.")
@click.option("--until", type=_At(), help="Only those accepted before this time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Tasks at most.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 1_000), default=10.0, show_default=True, help="Tasks a second at most."
)
@click.option("--canary", is_flag=True, help="The first task alone; the others once it has gone well.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_name
@as_json_option
@reported("tasks")
def start_job(
    verb: str, limit: int, rate: float, name: str | None, *, canary: bool, dry_run: bool, yes: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Cancel, retry now, redrive or discard every task that matches: the workers do it."""
    by, wanted = operator(name), _filter(given)
    job = BulkJob(new_task_id(), JobVerb(verb), wanted, limit, rate, by, int(time.time() * 1_000), canary)
    if job.verb in (JobVerb.CANCEL, JobVerb.DISCARD) and wanted == TaskFilter():
        raise click.UsageError(f"{verb} needs at least one option that chooses tasks")
    with _connected() as control:
        matched, complete = control.jobs.count(job, _COUNTING)
        if dry_run:
            _counted(matched, complete=complete, as_json=as_json)
            return
        if not yes:
            confirm(f"{verb} {counted(matched, 'task')}{'' if complete else ' or more'}?")
        added = control.jobs.add(job)
        details = {"matched": matched, "limit": limit, "ratePerSecond": rate, "canary": canary}
        result, phase = (audit.OK, audit.BEGIN) if added else ("too-many-jobs", "")
        entry = AuditEntry(
            by, audit.START_JOB, job_target(job), result, phase, client=socket.gethostname(), details=details
        )
        acts.record(control.log, entry)
    if not added:
        click.echo("too many jobs run: stop some, or wait", err=True)
        raise SystemExit(NOT_DONE)
    if as_json:
        echo_json(job.to_json())
    else:
        click.echo(f"job {job.id}: {job_target(job)}; the workers carry it out")


def _filter(given: Mapping[str, Any]) -> TaskFilter:
    chosen = {name: value for name, value in given.items() if name != "pairs" and value is not None}
    return TaskFilter(labels=dict(given["pairs"]), **chosen)


def _counted(matched: int, *, complete: bool, as_json: bool) -> None:
    if as_json:
        echo_json({"matched": matched, "complete": complete})
    else:
        click.echo(f"{counted(matched, 'task')}{'' if complete else ' or more'} would be taken")


@click.command("jobs")
@as_json_option
@reported("tasks")
def jobs(*, as_json: bool) -> None:
    """The jobs that run, and those that have ended within a day; newest first."""
    with _connected() as control:
        found = control.jobs.all()
    if as_json:
        echo_json([job.to_json() for job in found])
        return
    rows = [
        (
            job.id, job.verb.value, job.state.value, str(job.done), str(job.failed), str(job.limit), job.by,
            job_target(job).partition(" ")[2],
        )
        for job in found
    ]  # fmt: skip
    right = {"DONE", "FAILED", "LIMIT"}
    click.echo(table(_HEADS, rows, right=right, cut="FILTER", width=terminal_width()) if rows else "no jobs")


@click.command("job")
@click.argument("job_id")
@as_json_option
@reported("tasks")
def job(job_id: str, as_json: bool) -> None:
    """How far a job is."""
    with _connected() as control:
        found = _found(control, job_id)
    if as_json:
        echo_json(found.to_json())
        return
    click.echo(f"{found.id}: {job_target(found)}")
    why = f" ({found.reason})" if found.reason else ""
    click.echo(
        f"{found.state.value}{why}: {found.done} done, {found.failed} failed, {found.passed_over} passed over, of at most {found.limit}"
    )


@click.command("stop-job")
@click.argument("job_id")
@_name
@as_json_option
@reported("tasks")
def stop_job(job_id: str, name: str | None, as_json: bool) -> None:
    """Stop a job: what it has done stays done."""
    by = operator(name)
    with _connected() as control:
        stopped = control.jobs.stop(_found(control, job_id), "requested")
        result = audit.OK if stopped else "job-finished"
        acts.record(control.log, AuditEntry(by, audit.STOP_JOB, job_id, result, client=socket.gethostname()))
        found = _found(control, job_id)
    if not stopped:
        click.echo(f"job {job_id} has ended: {found.state.value}", err=True)
        raise SystemExit(NOT_DONE)
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(f"job {job_id} is stopped after {counted(found.done, 'task')}")


def _found(control: _Control, job_id: str) -> BulkJob:
    found = control.jobs.get(job_id)
    if found is None:
        click.echo(f"there is no job {job_id}: it has ended more than a day ago, or never was", err=True)
        raise SystemExit(NOT_DONE)
    return found
