"""Schedules. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from support.chaos.facts import Task
from support.chaos.view import View, millis

#: Seconds: up to this late each due time has its task, and up to this late one has that is not made up for otherwise; the system's own.
ON_TIME, LATE = 5.0, 60.0

#: Seconds that may pass between the decision on a due time and the record of its task.
SLACK = 8.0

#: Seconds after which a schedule goes on: of a wake-up that was lost, a worker's keeper looks after half a minute; one that a full work
#: queue refuses when it comes from a rung is sent again by the broker each half a minute (deploy/rabbitmq/advanced.config).
KEPT = 100.0


def due_times_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """Each due time has one task at most, none before it, none in a pause; what was not submitted is counted; it goes on by itself."""
    for name in dict.fromkeys(act.target for act in view.facts.acts if act.verb == "putSchedule"):
        tasks = [task for task in view.facts.tasks if _is_of(task, name)]
        period = _period(view, name)
        yield from ((name, text) for text in _wrong(view, name, tasks, period))
        shown = next((each for each in view.facts.schedules if each["name"] == name), None)
        if shown is not None:
            yield from ((name, text) for text in _gaps(view, name, tasks, period, shown))


def _is_of(task: Task, name: str) -> bool:
    """Whether it is the task of a due time."""
    own = (task.view.get("labels") or {}).get("schedule") == name
    return (
        own
        and bool(task.view["parentId"])
        and task.view["type"] != "robot.schedule"
        and task.view["state"] != "REJECTED"
    )


def due(task: Task) -> float:
    """The due time of a schedule's task, epoch seconds: its id is derived from it, and begins with it."""
    return int(task.id.replace("-", "")[:12], 16) / 1_000


def _period(view: View, name: str) -> int:
    cron = next(act.asked["cron"] for act in view.acts["putSchedule", name])
    return int(str(cron).split()[0].removeprefix("*/"))


def _wrong(view: View, name: str, tasks: list[Task], period: int) -> Iterator[str]:
    for at, count in Counter(due(task) for task in tasks).items():
        if count > 1:
            yield f"has {count} tasks for {at:.0f}"
        if at % period:
            yield f"has a task for {at}, which is no due time"
    puts, ends = view.acts["putSchedule", name], view.acts["deleteSchedule", name]
    began, ended = min(act.at for act in puts), max((act.ended for act in ends), default=float("inf"))
    for task in tasks:
        started = next((hop["at"] / 1_000 for hop in task.hops if hop["kind"] == "started"), None)
        if started is not None and started < due(task):
            yield f"{task.id} started {due(task) - started:.3f} s before its due time"
        if not began - period <= due(task) <= ended:
            yield f"{task.id} is for {due(task):.0f}, when there was no schedule"
        if any(since < due(task) < until for since, until in _pauses(view, name)):
            yield f"{task.id} is for {due(task):.0f}, in a pause"
    for tick, count in Counter(task.view["parentId"] for task in tasks if _late(task) > ON_TIME + SLACK).items():
        if count > 1:
            yield f"the wake-up {tick} made up for {count} due times"
    if puts[0].asked["catchUp"] == "none":
        yield from (
            f"{task.id} was made up for, {_late(task):.0f} s late" for task in tasks if _late(task) > LATE + SLACK
        )


def _late(task: Task) -> float:
    return millis(task.view["createdAt"]) / 1_000 - due(task)


def _pauses(view: View, name: str) -> Iterator[tuple[float, float]]:
    """From the answer to a pause until the next verb that may have ended it."""
    others = [act.at for verb in ("resumeSchedule", "putSchedule") for act in view.acts[verb, name]]
    for act in view.acts["pauseSchedule", name]:
        if act.done:
            yield act.ended, min((at for at in others if at > act.at), default=float("inf"))


def _gaps(view: View, name: str, tasks: list[Task], period: int, shown: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a schedule as the API showed it in the end."""
    if shown["fired"] > len(tasks):
        yield f"has fired {shown['fired']} times, and has {len(tasks)} tasks"
    last = shown["lastRun"] and millis(shown["lastRun"]["at"]) / 1_000
    if not shown["paused"] and shown["seenAt"] - (last or 0) > KEPT:
        yield f"stands still: its last due time with a task is {last}"
    created = [act.ended for act in view.acts["putSchedule", name] if act.done]
    if last is None or not created or view.acts["pauseSchedule", name]:
        return
    begin = int(max(created)) // period * period + period
    gaps = set(range(begin, int(last) + 1, period)) - {due(task) for task in tasks}
    if len(gaps) > shown["missed"] + shown["skipped"]:
        yield f"lacks {len(gaps)} due times, and counts {shown['missed']} missed, {shown['skipped']} skipped"
