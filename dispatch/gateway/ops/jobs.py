"""``/ops/jobs``: verbs on every task that a filter matches: started, watched, stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import validation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.ops import acts, filtering
from dispatch.gateway.ops.acts import Done, Field, Question
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import may, page
from dispatch.gateway.parts import Parts
from dispatch.gateway.views import jobs as job_views
from dispatch.protocol.jobs import JobVerb
from dispatch.protocol.record import State, Status

PATH = f"{ROOT}/jobs"

#: The members of a job's filter that the URL has; a label is `key=value`.
FILTERS = ("type", "status", "state", "errorType", "fingerprint", "principal", "since", "until")

#: Tasks that a job may take at most, and tasks a second unless something else is chosen.
MOST, RATE = 100_000, 10

_EFFECTS = {
    JobVerb.CANCEL: "Tasks that wait end as CANCELLED at once; those that run are asked to stop.",
    JobVerb.RETRY_NOW: "The waits of tasks in RETRY_WAIT and DELAYED end: their next attempts go to the work queue. No attempt is used up.",
    JobVerb.REDRIVE: "Each dead letter goes back to the work queue with all its attempts, the same payload and the same idempotency key.",
    JobVerb.DISCARD: "The messages leave the dead-letter queue for good: they cannot be sent again. Their records stay for a while.",
}


class JobPages:
    """The pages.

    Args:
        frame: renders them.
        parts: of the application.
    """

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts = frame, parts

    @page("jobs", "/jobs", api_keys.DEADLETTERS_READ, api_keys.TASKS_CONTROL)
    def index(self) -> Response:
        """Every job."""
        found = self._frame.part(self._all)
        return self._frame.page("jobs.html", found=found, may_start=bool(verbs()))

    @page("jobs_new", "/jobs/new", api_keys.TASKS_CONTROL, api_keys.DEADLETTERS_WRITE)
    def new(self) -> Response:
        """What a job is to do, and to which tasks: the form of a filter, which leads to the question."""
        types = sorted(name for name, kind in self._parts.types.items() if not kind.internal)
        given = dict(filtering.given())
        return self._frame.page(
            "job_new.html",
            verbs=verbs(),
            times=filtering.times(),
            types=types,
            given={"verb": fitting(given), **given},
            states=list(State),
            statuses=list(Status),
        )

    @page("jobs_one", "/jobs/<job_id>", api_keys.DEADLETTERS_READ, api_keys.TASKS_CONTROL)
    def show(self, job_id: str) -> Response:
        """One, live while it runs."""
        job = job_views.find(self._parts.jobs, self._parts.bulk, job_id)
        may_stop = job["state"] == "running" and may(_scope(JobVerb(job["verb"])))
        return self._frame.page("job.html", job=shown(job), may_stop=may_stop)

    def _all(self) -> list[dict[str, Any]]:
        every = [*(job.to_json() for job in self._parts.jobs.all()), *map(job_views.show, self._parts.bulk.all())]
        return [shown(job) for job in sorted(every, key=lambda job: str(job["createdAt"]), reverse=True)]


def shown(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job as pages have it: its filter in words, and how far it is in percent where that is known."""
    of, done = job["matched"], (job["done"] or 0) + (job["failed"] or 0) + (job["passedOver"] or 0)
    percent = min(100, round(100 * done / of)) if of and job["done"] is not None else None
    words = [(name, value) for name, value in job["filter"].items() if value and name != "labels"]
    words += [("label", f"{name}={value}") for name, value in (job["filter"].get("labels") or {}).items()]
    return {**job, "words": words, "percent": 100 if job["state"] == "done" else percent}


def fitting(given: Mapping[str, str]) -> str:
    """The verb that the form begins with: what tasks in that state wait for; never one that ends them."""
    allowed = verbs()
    fits = JobVerb.REDRIVE if given.get("state") == State.DEAD_LETTERED or "fingerprint" in given else JobVerb.RETRY_NOW
    return next((verb.value for verb in (fits, JobVerb.RETRY_NOW, JobVerb.REDRIVE) if verb in allowed), "")


def verbs() -> list[JobVerb]:
    """What the current visitor may have done to many tasks."""
    return [verb for verb in JobVerb if may(_scope(verb))]


def _scope(verb: JobVerb) -> str:
    return api_keys.DEADLETTERS_WRITE if verb.for_dead_letters else api_keys.TASKS_CONTROL


class StartJob:
    """Start one; its filter is in the URL."""

    rule = acts.rule("jobs_start", "/jobs/start", "startJob", api_keys.TASKS_CONTROL, api_keys.DEADLETTERS_WRITE)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ask(self) -> Question:
        """As in `Act`: a dry run."""
        order = asked(MOST, RATE, canary=False)
        verb, back = order.verb, filtering.url(f"{PATH}/new", filtering.given())
        title = f"{_TITLES[verb]} all that match?"
        if _names_nothing(order) and verb in (JobVerb.CANCEL, JobVerb.DISCARD):
            refusal = f"To {verb.value} everything by one click is not possible: choose a filter."
            return Question(title, "", "", back=back, refusal=refusal)
        job = job_views.made(order)
        matched, complete = job_views.count(self._parts.jobs, job)
        facts = [(_NAMES.get(name, name), value) for name, value in filtering.without("verb")]
        if not complete:
            facts.append(("Count", "at least so many: counting them takes too long"))
        if matched >= MOST:
            facts.append(("Limit", f"a job takes {MOST:,} tasks at most"))
        return Question(
            title, _EFFECTS[verb], f"{_TITLES[verb]} {matched:,}", matched, back, facts or [("Filter", "none: every task")],
            fields(order, matched), grave=verb in (JobVerb.CANCEL, JobVerb.DISCARD), refusal="" if matched else "No task matches now.",
            hidden=[("matched", str(matched))],
        )  # fmt: skip

    def carry_out(self, form: Mapping[str, str]) -> Done:
        """As in `Act`."""
        order = asked(_number(form, "limit", int), _number(form, "rate", float), canary="canary" in form)
        job = job_views.made(order)
        if _names_nothing(order):
            _confirmed(form)
            job = dataclasses.replace(job, limit=min(job.limit, max(1, int(form["confirm"]))))
        matched, _ = job_views.count(self._parts.jobs, job)
        job_views.begin(self._parts.jobs, job)
        acts.note(matched=matched)
        return Done("The job is started.", f"{PATH}/{job.id}")


_TITLES = {
    JobVerb.CANCEL: "Cancel", JobVerb.RETRY_NOW: "Retry now", JobVerb.REDRIVE: "Redrive", JobVerb.DISCARD: "Discard",
}  # fmt: skip

_NAMES = {
    "type": "Type", "errorType": "Error type", "fingerprint": "Fingerprint", "state": "State", "status": "Status",
    "principal": "Principal", "label": "Label", "since": "Accepted since", "until": "Accepted before",
}  # fmt: skip


def fields(order: request_models.JobBody, matched: int) -> list[Field]:
    """What is chosen beside the filter."""
    chosen = [
        Field("rate", "Tasks a second", "number", str(RATE), attributes={"min": "0.1", "max": "1000", "step": "0.1"}),
        Field(
            "limit", "Tasks at most", "number", str(max(matched, 1)), attributes={"min": "1", "max": str(MOST)}
        ),
    ]  # fmt: skip
    if order.verb in (JobVerb.REDRIVE, JobVerb.RETRY_NOW):
        hint = "The first task alone; the others once it has gone well, none if it fails again."
        chosen.append(Field("canary", "Canary", "checkbox", "1", hint))
    if _names_nothing(order):
        hint = f"The filter is empty: this is everything. Type {matched} to go on."
        chosen.append(Field("confirm", "How many tasks", "number", "", hint, required=True))
    return chosen


def asked(limit: Any, rate: Any, *, canary: bool) -> request_models.JobBody:
    """What the URL of the current request asks for, with what the form has.

    Raises:
        Problem: 422.
    """
    given = flask.request.args
    wanted: dict[str, Any] = {name: given[name] for name in FILTERS if given.get(name, "").strip()}
    pairs = [each.partition("=") for each in given.getlist("label") if each.strip()]
    if pairs:
        wanted["labels"] = {name: value for name, _, value in pairs}
    if len(wanted.get("labels", {})) < len(pairs):  # two values of one key: no task has both
        raise validation.invalid(FieldError("/filter/labels", "A label's key may occur once.", "duplicate"))
    if unknown := set(given) - {*FILTERS, "label", "verb"}:  # left out, it would match more than was meant
        error = FieldError("/filter", f"A filter has no {min(unknown)[:40]!r}.", "extra_forbidden")
        raise validation.invalid(error)
    body = {
        "verb": given.get("verb", ""), "filter": wanted, "limit": limit, "ratePerSecond": rate, "canary": canary,
    }  # fmt: skip
    return validation.parse(request_models.JobBody, body)


def _names_nothing(order: request_models.JobBody) -> bool:
    return not order.filter.model_dump(exclude_defaults=True)


def _confirmed(form: Mapping[str, str]) -> None:
    """Whether the number was typed that the question had."""
    counted = form.get("matched", "")
    if not (
        counted.isascii() and counted.isdigit() and len(counted) < 8 and form.get("confirm", "").strip() == counted
    ):
        text = "The filter is empty, and this is everything: type the number of tasks that the question names."
        raise Problem("validation-error", text, errors=[FieldError("/confirm", text, "unconfirmed")])


def _number(form: Mapping[str, str], name: str, read: type) -> Any:
    """A number of the form; what is none is refused as what it is."""
    text = form.get(name, "")
    try:
        return read(text)
    except ValueError:
        return text


class StopJob:
    """Stop one."""

    rule = acts.rule("jobs_stop", "/jobs/<job_id>/stop", "stopJob", api_keys.DEADLETTERS_WRITE, api_keys.TASKS_CONTROL)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ask(self, job_id: str) -> Question:
        """As in `Act`."""
        job = shown(job_views.find(self._parts.jobs, self._parts.bulk, job_id))
        refusal = "" if job["state"] == "running" else f"It has ended: {job['state']}."
        facts = [("Job", f"{job['verb']}, asked for by {job['requestedBy']}"), *((n, str(v)) for n, v in job["words"])]
        effect = (
            "What has been done stays done; at most the task in hand is still acted on, and the rest is left as it is."
        )
        return Question(
            "Stop this job?", effect, "Stop the job", job["left"], f"{PATH}/{job_id}", facts, refusal=refusal
        )

    def carry_out(self, form: Mapping[str, str], job_id: str) -> Done:
        """As in `Act`."""
        del form
        job_views.stop(self._parts.jobs, self._parts.bulk, job_id, self._parts.audit.add)
        return Done("The job is stopped.", PATH)
