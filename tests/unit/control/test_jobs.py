"""The runner of jobs: task by task, at a rate, with a canary; what a task's error means for its job."""

import dataclasses

import pytest

from dispatch.control.jobs import CANARY_FAILED, CANARY_PAUSE, JobRunner
from dispatch.control.refusals import NotWaiting
from dispatch.errors import NotSent, StoreUnavailable
from dispatch.protocol.jobs import BulkJob, JobState, JobVerb
from dispatch.protocol.record import Record, State
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.index import Page

JOB = BulkJob("j", JobVerb.REDRIVE, TaskFilter(type="echo"), 100, 0.0, "op", 1)


def task(number, state=State.DEAD_LETTERED):
    return Record(f"t-{number}", "echo", "ada", state, 0, 0, 0, 4, 1, 0, 0)


class JobStore:
    """One job and its pages; a cursor is the number of the next page."""

    def __init__(self, job, *pages):
        self.job, self.pages = job, pages
        self.asked, self.did, self.entries = [], [], []
        self.errors, self.records, self.mine = {}, {}, True
        verbs = dict.fromkeys(JobVerb, self.act)
        self.runner = JobRunner(self, self, verbs, changed=(NotWaiting,), audit=self.entries.append, interval=1)

    def all(self):
        return [self.job]

    def take_turn(self, _token):
        return self.mine

    def count(self, job, _seconds):
        return min(job.limit, sum(len(page) for page in self.pages)), True

    def page(self, job):
        number = int(job.cursor or 0)
        self.asked.append(number)
        return Page(self.pages[number], str(number + 1) if number + 1 < len(self.pages) else None)

    def write(self, job):
        if self.job.state is not JobState.RUNNING:
            return False
        self.job = job
        return True

    def get(self, task_id):
        return self.records.get(task_id)

    def act(self, task_id, by):
        assert by == "op"
        if error := self.errors.get(task_id):
            raise error
        self.did.append(task_id)

    def run(self):
        while self.job.state is JobState.RUNNING and self.runner.step() == 0:
            pass


def test_every_task_of_every_page_is_acted_on_once_and_the_end_is_in_the_audit_log():
    store = JobStore(JOB, [task(1), task(2)], [], [task(3)])
    store.run()

    assert store.did == ["t-1", "t-2", "t-3"]
    assert (store.job.state, store.job.done, store.job.cursor) == (JobState.DONE, 3, "2")
    assert store.asked == [0, 1, 2]
    assert [(entry.verb, entry.phase, entry.details["done"]) for entry in store.entries] == [("startJob", "end", 3)]


def test_what_matches_is_counted_before_the_first_task():
    store = JobStore(dataclasses.replace(JOB, rate=0.01), [task(1), task(2)], [task(3)])
    store.runner.step()
    shown = store.job.to_json()

    assert (shown["matched"], shown["matchedAll"], shown["done"], shown["left"]) == (3, True, 1, 2)


def test_a_job_that_cannot_be_carried_out_fails_and_keeps_no_other_from_its_turn():
    store = JobStore(JOB, [task(1)])
    store.count = lambda *_: [].pop()
    wait = store.runner.step()

    assert (wait, store.job.state, store.job.reason) == (0.0, JobState.FAILED, "IndexError")
    assert [(entry.phase, entry.result) for entry in store.entries] == [("end", "IndexError")]


def test_a_server_that_is_away_fails_no_job():
    store = JobStore(JOB, [task(1)])

    def away(*_):
        raise StoreUnavailable

    store.count = away
    with pytest.raises(StoreUnavailable):
        store.runner.step()
    assert store.job.state is JobState.RUNNING


def test_a_limit_ends_it():
    store = JobStore(dataclasses.replace(JOB, limit=2), [task(1), task(2), task(3)])
    store.run()

    assert (store.did, store.job.state) == (["t-1", "t-2"], JobState.DONE)


def test_a_rate_makes_it_wait():
    store = JobStore(dataclasses.replace(JOB, rate=0.01), [task(1), task(2)])
    waits = [store.runner.step(), store.runner.step()]

    assert store.did == ["t-1"]
    assert all(90 < wait <= 100 for wait in waits)


def test_a_task_that_has_changed_or_fails_costs_no_other():
    store = JobStore(JOB, [task(1), task(2), task(3)])
    store.errors = {"t-1": NotWaiting(task(1)), "t-2": RuntimeError("on purpose")}
    store.run()

    assert store.did == ["t-3"]
    assert (store.job.done, store.job.failed, store.job.passed_over) == (1, 1, 1)


def test_a_server_that_is_away_leaves_the_task_for_the_next_step():
    store = JobStore(JOB, [task(1), task(2)])
    store.errors = {"t-1": NotSent()}
    with pytest.raises(NotSent):
        store.runner.step()
    store.errors = {}
    store.run()

    assert store.did == ["t-1", "t-2"]
    assert store.job.done == 2


def test_a_job_that_was_stopped_goes_no_further():
    store = JobStore(JOB, [task(1), task(2)])
    store.write = lambda _job: False
    store.runner.step()

    assert store.did == ["t-1"]
    assert store.entries == []


def test_another_workers_turn_is_left_to_it():
    store = JobStore(JOB, [task(1)])
    store.mine = False

    assert store.runner.step() is None
    assert store.did == []


@pytest.mark.parametrize(
    ("state", "did", "ended", "reason"),
    [
        (State.SUCCEEDED, ["t-1", "t-2"], JobState.DONE, ""),
        (State.DEAD_LETTERED, ["t-1"], JobState.STOPPED, CANARY_FAILED),
    ],
)
def test_a_canary_goes_first_and_decides(state, did, ended, reason):
    store = JobStore(dataclasses.replace(JOB, canary=True), [task(1), task(2)])
    store.records = {"t-1": task(1, State.RUNNING)}
    open_wait = store.runner.step()
    before = list(store.did)
    store.records = {"t-1": task(1, state)}
    store.run()

    assert (open_wait, before) == (CANARY_PAUSE, ["t-1"])
    assert (store.did, store.job.state, store.job.reason) == (did, ended, reason)


def test_a_canary_of_a_cancellation_has_passed_at_once():
    store = JobStore(dataclasses.replace(JOB, verb=JobVerb.CANCEL, canary=True), [task(1), task(2)])
    store.run()

    assert store.did == ["t-1", "t-2"]
