"""A job in Redis and in the API; which tasks a verb is for; when a canary has passed."""

import dataclasses

from dispatch.protocol.audit import job_target
from dispatch.protocol.jobs import BulkJob, JobVerb, canary_passed
from dispatch.protocol.record import Record, State
from dispatch.protocol.task_filter import TaskFilter
from support.cases import each

FILTER = TaskFilter("ada", "echo", "FAIL", labels={"a": "b"}, since=1, until=2)
JOB = BulkJob(
    "j", JobVerb.REDRIVE, FILTER, 10, 0.5, "op", 1_795_487_760_000, canary=True, done=3, canary_task="t", cursor="c"
)
TASK = Record("t", "echo", "ada", State.QUEUED, 0, 0, 0, 4, 1, 0, 0)


def test_a_job_comes_back_from_its_hash():
    words = [str(word) for word in JOB.fields()]

    assert BulkJob.parse(dict(zip(words[::2], words[1::2], strict=True))) == JOB
    assert BulkJob.parse({}) is None


def test_a_job_is_named_by_its_verb_and_filter():
    assert job_target(JOB).startswith("redrive type=echo status=FAIL principal=ada since=1970")
    assert job_target(JOB).endswith("label=a=b")
    assert job_target(dataclasses.replace(JOB, filter=TaskFilter())) == "redrive all"


@each(
    ("verb", "states"),
    [
        (JobVerb.CANCEL, {"SCHEDULED", "DELAYED", "QUEUED", "RETRY_WAIT", "HELD", "RUNNING", "WAITING"}),
        (JobVerb.RETRY_NOW, {"RETRY_WAIT", "DELAYED"}),
        (JobVerb.REDRIVE, {"DEAD_LETTERED", "EXPIRED"}),
        (JobVerb.DISCARD, {"DEAD_LETTERED", "EXPIRED"}),
    ],
)
def test_a_verb_is_for_tasks_in_some_states(verb, states):
    assert {state.value for state in State if verb.applies(dataclasses.replace(TASK, state=state))} == states


def test_a_verb_is_not_for_a_task_that_it_was_done_to():
    asked = dataclasses.replace(TASK, state=State.RUNNING, cancel_requested=True)
    gone = dataclasses.replace(TASK, state=State.DEAD_LETTERED, discarded=True)

    assert not JobVerb.CANCEL.applies(asked)
    assert not JobVerb.DISCARD.applies(gone)


@each(
    ("states", "passed"),
    [
        (("SUCCEEDED", "WAITING"), True),
        (("QUEUED", "SCHEDULED", "RUNNING", "HELD"), None),
        (("RETRY_WAIT", "DEAD_LETTERED", "EXPIRED", "CANCELLED", "REJECTED"), False),
    ],
)
def test_a_canary_has_passed_once_it_has_gone_well(states, passed):
    assert {canary_passed(dataclasses.replace(TASK, state=State(state))) for state in states} == {passed}
    assert canary_passed(None) is True
