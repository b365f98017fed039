"""The pages by which many tasks are acted on, and those about that: dead letters, jobs, pauses, schedules, the audit log."""

from __future__ import annotations

from dispatch.gateway.ops import acts, jobs, letters, pages, pauses, schedules
from dispatch.gateway.ops.audit import AuditView
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.mend import MendPage
from dispatch.gateway.ops.pages import Guarded
from dispatch.gateway.parts import Parts


def add(guarded: Guarded, frame: Frame, parts: Parts) -> None:
    """Add them.

    Args:
        guarded: takes their views.
        frame: renders them.
        parts: of the application.
    """
    every: tuple[acts.Act, ...] = (
        letters.RedriveLetter(parts), letters.DiscardLetter(parts), letters.RedriveSelected(parts), letters.DiscardSelected(parts),
        jobs.StartJob(parts), jobs.StopJob(parts), pauses.PauseTasks(parts), pauses.ResumeTasks(parts),
        schedules.PauseSchedule(parts), schedules.ResumeSchedule(parts), schedules.RunSchedule(parts),
        schedules.DeleteSchedule(parts),
    )  # fmt: skip
    for act in every:
        acts.add(guarded, frame, act)
    mend, form = MendPage(frame, parts), schedules.ScheduleForm(frame, parts)
    guarded.add(mend.rule, mend.view)
    guarded.add(form.create, form.new)
    guarded.add(form.change, form.edit)
    verbs = [act.rule.verb for act in every] + [form.create.verb]
    for group in (
        letters.DeadLetterPages(frame, parts),
        jobs.JobPages(frame, parts),
        pauses.PausePages(frame, parts),
        schedules.SchedulePages(frame, parts),
        AuditView(frame, parts.audit, verbs),
    ):
        for rule, view in pages.rules(group):
            guarded.add(rule, view)
