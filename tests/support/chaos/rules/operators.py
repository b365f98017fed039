"""What operators did: jobs, and the audit log. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from support.chaos.view import View

#: Verbs whose requests have an entry in the audit log.
AUDITED = frozenset({
    "cancelTask", "retryTaskNow", "pauseTasks", "resumeTasks", "redriveDeadLetter", "redriveDeadLetters", "discardDeadLetter",
    "startJob", "stopJob", "putSchedule", "deleteSchedule", "pauseSchedule", "resumeSchedule", "runScheduleNow",
})  # fmt: skip


def jobs_end(view: View) -> Iterator[tuple[str, str]]:
    """Each job is done, or stopped for a reason; it took no more tasks than it may, and failed for none."""
    jobs = {job["jobId"]: job for job in view.facts.jobs}
    for act in view.facts.acts:
        job_id = act.answer.get("jobId", "")
        if act.verb != "startJob" or not act.done or act.asked["dryRun"]:
            continue
        job = jobs.get(job_id)
        if job is None:
            yield job_id, "was started, and is no job"
            continue
        if job["state"] not in {"done", "stopped"}:
            yield job_id, f"is still {job['state']}"
        # A worker that dies between a verb and the job's note does the verb once more, and counts the task twice.
        if job["done"] + job["failed"] > act.asked["limit"]:
            yield job_id, f"took {job['done']} + {job['failed']} of {act.asked['limit']} tasks"
        if job["failed"]:
            yield job_id, f"failed for {job['failed']} tasks"
        stopped = any(stop.possible for stop in view.acts["stopJob", job_id])
        if job["state"] == "stopped" and not stopped and not (act.asked["canary"] and job["reason"] == "canary-failed"):
            yield job_id, f"was stopped, {job['reason']}, and nobody wanted that"


def acts_are_in_the_audit_log(view: View) -> Iterator[tuple[str, str]]:
    """Each verb that was answered has its entry, or, where Redis did not take it, its line in the gateway's log."""
    found = {entry["requestId"] for entry in view.facts.audit} | set(view.facts.audit_lines)
    for act in view.facts.acts:
        if act.asked.get("dryRun"):  # counting has an entry a minute
            continue
        if act.verb in AUDITED and act.done and act.request_id not in found:
            yield act.target, f"{act.verb} ({act.request_id}) was answered {act.status}, and is not in the audit log"
