"""``celery -A celery_app jobs list | show | start | stop``: a verb on every task that a filter matches, carried out by the workers.

They read and write Redis themselves, so they work while no gateway runs.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from dispatch.cli import acts
from dispatch.cli.output import (
    NOT_DONE,
    as_json_option,
    asks,
    confirm,
    counted,
    echo_json,
    environment,
    operator,
    reported,
)
from dispatch.cli.tables import table, terminal_width
from dispatch.control.jobs import end_of
from dispatch.protocol import audit, labels, moments
from dispatch.protocol.audit import AuditEntry, job_target
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import UNCOUNTED, BulkJob, JobState, JobVerb
from dispatch.protocol.record import State, Status
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.audit import AuditLog
from dispatch.store.jobs import Jobs
from dispatch.store.scripts import RedisHandle

#: Seconds for each Redis answer, to count at most, and between two looks at a job.
_REDIS_TIMEOUT, _COUNTING, _LOOK = 2.0, 10.0, 0.5

_HEADS = ("JOB", "VERB", "STATE", "MATCHED", "DONE", "FAILED", "LEFT", "LIMIT", "BY", "FILTER")

#: The columns that are numbers.
_NUMBERS = frozenset({"MATCHED", "DONE", "FAILED", "LEFT", "LIMIT"})


class _Jobs(NamedTuple):
    jobs: Jobs
    log: AuditLog


@contextlib.contextmanager
def _connected() -> Iterator[_Jobs]:
    settings, _, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    try:
        yield _Jobs(Jobs(redis), AuditLog(redis, settings, lines=False))
    finally:
        redis.close()


class _JobLabel(click.ParamType[tuple[str, str]]):
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
_watch = click.option(
    "--watch", "--wait", "watch", is_flag=True, help="Stay until it has ended; a line for each change."
)


@click.group("jobs")
def jobs() -> None:
    """A verb on every task that a filter matches: the workers carry it out."""


@jobs.command("start")
@click.argument("verb", type=click.Choice([each.value for each in JobVerb]))
@click.option("--type", "type", metavar="TYPE", help="Only tasks of this type.")
@click.option("--status", type=click.Choice([each.value for each in Status]), help="Only those with this status.")
@click.option("--state", type=click.Choice([each.value for each in State]), help="Only those in this state.")
@click.option("--error-type", metavar="TYPE", help="Only those whose last attempt failed so.")
@click.option(
    "--fingerprint", "error_fingerprint", metavar="HEX", help="Only those with this fingerprint of the error's message."
)
@click.option("--principal", metavar="ID", help="Only those of this principal.")
@click.option("--label", "pairs", type=_JobLabel(), multiple=True, help="Only those with this label; may be repeated.")
@click.option("--since", type=_At(), help="Only those accepted at this time or later.")
@click.option("--until", type=_At(), help="Only those accepted before this time.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1_000, show_default=True, help="Tasks at most.")
@click.option(
    "--rate", type=click.FloatRange(0.01, 1_000), default=10.0, show_default=True, help="Tasks a second at most."
)
@click.option("--canary", is_flag=True, help="The first task alone; the others once it has gone well.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_watch
@_name
@as_json_option
@reported("jobs")
def start(
    verb: str, limit: int, rate: float, name: str | None, *, canary: bool, dry_run: bool, yes: bool, watch: bool, as_json: bool,
    **given: Any,
) -> None:  # fmt: skip
    """Cancel, retry now, redrive or discard every task that matches: the workers do it."""
    by, wanted = operator(name), _filter(given)
    job = BulkJob(new_task_id(), JobVerb(verb), wanted, limit, rate, by, int(time.time() * 1_000), canary)
    if job.verb in (JobVerb.CANCEL, JobVerb.DISCARD) and wanted == TaskFilter():
        raise click.UsageError(f"{verb} needs at least one option that chooses tasks")
    with _connected() as connected:
        matched, complete = connected.jobs.count(job, _COUNTING)
        if dry_run:
            _counted(matched, complete=complete, as_json=as_json)
            return
        if not yes:
            _confirm(f"{verb} {counted(matched, 'task')}{'' if complete else ' or more'}?")
        added = connected.jobs.add(job)
        details = {"matched": matched, "limit": limit, "ratePerSecond": rate, "canary": canary}
        result, phase = (audit.OK, audit.BEGIN) if added else ("too-many-jobs", "")
        entry = AuditEntry(
            by, audit.START_JOB, job_target(job), result, phase, client=socket.gethostname(), details=details
        )
        acts.record(connected.log, entry)
    if not added:
        click.echo("too many jobs run: stop some, or wait", err=True)
        raise SystemExit(NOT_DONE)
    if not as_json:
        click.echo(f"job {job.id}: {job_target(job)}; the workers carry it out")
    if watch:
        _follow(job.id, as_json=as_json)
    elif as_json:
        echo_json(job.to_json())


def _confirm(question: str) -> None:
    """Ask on a terminal; a script gives an option."""
    if not asks():
        raise click.UsageError("without a terminal to ask on, give --yes")
    confirm(question)


def _filter(given: Mapping[str, Any]) -> TaskFilter:
    chosen = {name: value for name, value in given.items() if name != "pairs" and value is not None}
    return TaskFilter(labels=dict(given["pairs"]), **chosen)


def _counted(matched: int, *, complete: bool, as_json: bool) -> None:
    if as_json:
        echo_json({"matched": matched, "complete": complete})
    else:
        click.echo(f"{counted(matched, 'task')}{'' if complete else ' or more'} would be taken")


@jobs.command("list")
@as_json_option
@reported("jobs")
def list_(*, as_json: bool) -> None:
    """The jobs that run, and those that have ended within a day; newest first."""
    with _connected() as connected:
        found = connected.jobs.all()
    if as_json:
        echo_json([job.to_json() for job in found])
        return
    rows = [
        (
            job.id, job.verb.value, job.state.value, _number(job.matched), str(job.done), str(job.failed),
            "-" if job.left is None else str(job.left), str(job.limit), job.by,
            job_target(job).partition(" ")[2],
        )
        for job in found
    ]  # fmt: skip
    click.echo(table(_HEADS, rows, right=_NUMBERS, cut="FILTER", width=terminal_width()) if rows else "no jobs")


def _number(matched: int) -> str:
    return "-" if matched == UNCOUNTED else str(matched)


@jobs.command("show")
@click.argument("job_id")
@_watch
@as_json_option
@reported("jobs")
def show(job_id: str, *, watch: bool, as_json: bool) -> None:
    """How far a job is."""
    with _connected() as connected:
        found = _found(connected, job_id)
    if not as_json:
        click.echo(f"{found.id}: {job_target(found)}")
    if watch:
        _follow(job_id, as_json=as_json)
    elif as_json:
        echo_json(found.to_json())
    else:
        click.echo(_progress(found))


def _progress(job: BulkJob) -> str:
    why = f" ({job.reason})" if job.reason else ""
    of = "" if job.matched == UNCOUNTED else f" of {job.matched}{'' if job.matched_all else ' or more'}"
    left = f", {job.left} left" if job.left else ""
    return (
        f"{job.state.value}{why}: {job.done}{of} done, {job.failed} failed, {job.passed_over} passed over{left}; "
        f"at most {job.limit}"
    )


def _follow(job_id: str, *, as_json: bool) -> None:
    """Stay until a job has ended: a line for each change, or with ``--json`` the job as it has ended.

    Raises:
        SystemExit: 1 where it was stopped, has failed, or failed for some task.
    """
    last = ""
    with _connected() as connected:
        while True:
            job = _found(connected, job_id)
            if not as_json and (line := _progress(job)) != last:
                click.echo(line)
                sys.stdout.flush()
                last = line
            if not job.running:
                break
            time.sleep(_LOOK)
    if as_json:
        echo_json(job.to_json())
    if job.state is not JobState.DONE or job.failed:
        raise SystemExit(NOT_DONE)


@jobs.command("stop")
@click.argument("job_id")
@_name
@as_json_option
@reported("jobs")
def stop(job_id: str, name: str | None, as_json: bool) -> None:
    """Stop a job: what it has done stays done."""
    by = operator(name)
    with _connected() as connected:
        stopped = connected.jobs.stop(_found(connected, job_id), "requested")
        result = audit.OK if stopped else "job-finished"
        acts.record(connected.log, AuditEntry(by, audit.STOP_JOB, job_id, result, client=socket.gethostname()))
        found = _found(connected, job_id)
        if stopped:
            acts.record(connected.log, end_of(found))
    if not stopped:
        click.echo(f"job {job_id} has ended: {found.state.value}", err=True)
        raise SystemExit(NOT_DONE)
    if as_json:
        echo_json(found.to_json())
    else:
        click.echo(f"job {job_id} is stopped after {counted(found.done, 'task')}")


def _found(connected: _Jobs, job_id: str) -> BulkJob:
    found = connected.jobs.get(job_id)
    if found is None:
        click.echo(f"there is no job {job_id}: it has ended more than a day ago, or never was", err=True)
        raise SystemExit(NOT_DONE)
    return found
