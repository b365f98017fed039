"""P1, P4: a verb on many tasks goes on when its gateway is gone and the worker that carries it out dies."""

import time

import pytest

from dispatch import crashpoints
from dispatch.control.jobs import CANARY_FAILED
from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import BulkJob, JobState, JobVerb
from dispatch.protocol.record import State
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.jobs import Jobs
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually
from support.worker import open_bench, running_worker

MANY = 60


@pytest.fixture
def bench(settings):
    """A bench whose delays may be longer than any test takes."""
    with open_bench(settings.model_copy(update={"delay_levels": 8})) as made:
        yield made


@pytest.fixture
def jobs(bench):
    return Jobs(bench.stores.redis)


def _start(jobs, verb, wanted, **options):
    given = {"limit": 1_000, "rate": 0.0, "by": "op", **options}
    job = BulkJob(id=new_task_id(), verb=verb, filter=wanted, created_at=int(time.time() * 1_000), **given)
    assert jobs.add(job)
    return job.id


def _ended(jobs, job_id):
    eventually(lambda: not jobs.get(job_id).running, 60, "the job ends")
    return jobs.get(job_id)


def _count(job):
    return job.state, job.done, job.failed


def test_a_cancellation_of_many_passes_by_what_its_filter_does_not_match(bench, jobs):
    doomed = [bench.submit("echo", {"message": "x"}, delay=200, principal="ada") for _ in range(MANY)]
    others = [bench.submit("echo", {"message": "x"}, delay=10, principal="bob") for _ in range(3)]
    job_id = _start(jobs, JobVerb.CANCEL, TaskFilter(principal="ada", type="echo"))
    counted = jobs.count(jobs.get(job_id), 10.0)
    with running_worker(bench.settings, abrupt=True):
        job = _ended(jobs, job_id)
        states = {bench.state(task_id) for task_id in doomed}
        left = {bench.finished(task_id).state for task_id in others}

    assert counted == (MANY, True)
    assert _count(job) == (JobState.DONE, MANY, 0)
    assert (states, left) == ({State.CANCELLED}, {State.SUCCEEDED})
    assert [entry.verb for _, entry in _audit(bench)] == ["startJob"]


def _audit(bench):
    page = bench.stores.audit.page(principal=None, verb=None, limit=9, cursor=None)
    return [(one.id, one.entry) for one in page.items]


def test_the_worker_that_carries_it_out_dies_and_another_goes_on(bench, jobs, monkeypatch, tmp_path):
    tasks = [bench.submit("echo", {"message": "x"}, delay=200) for _ in range(MANY)]
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"job.recorded={tmp_path / 'died-here'}")
        with running_worker(bench.settings, abrupt=True) as worker:
            job_id = _start(jobs, JobVerb.CANCEL, TaskFilter(type="echo"), rate=100.0)
            eventually(lambda: worker.process.poll() is not None, 30, "it dies there")
    cut_off = jobs.get(job_id)
    bench.stores.redis.run(("DEL", bench.stores.redis.keys.jobs_turn))  # as it lapses, half a minute later
    with running_worker(bench.settings, abrupt=True):
        job = _ended(jobs, job_id)

    assert (cut_off.state, cut_off.done) == (JobState.RUNNING, 1)
    assert _count(job) == (JobState.DONE, MANY, 0)
    assert {bench.state(task_id) for task_id in tasks} == {State.CANCELLED}


def test_the_gateway_that_started_it_and_the_worker_that_began_it_are_killed_and_it_goes_on(
    bench, jobs, monkeypatch, tmp_path
):
    tasks = [bench.submit("echo", {"message": "x"}, delay=200) for _ in range(MANY)]
    order = {"verb": "cancel", "filter": {"type": "echo"}, "ratePerSecond": 100}
    with running_gateway(bench.settings, free_port()) as (client, gateway, _):
        with monkeypatch.context() as armed:
            armed.setenv(crashpoints.VARIABLE, f"job.recorded={tmp_path / 'died-here'}")
            with running_worker(bench.settings, abrupt=True) as worker:
                job_id = client.post("/v1/jobs", json=order).raise_for_status().json()["jobId"]
                eventually(lambda: worker.process.poll() is not None, 30, "it dies there")
        shown = client.get(f"/v1/jobs/{job_id}").json()
        gateway.kill()
    bench.stores.redis.run(("DEL", bench.stores.redis.keys.jobs_turn))  # as it lapses, half a minute later
    with running_worker(bench.settings, abrupt=True):
        job = _ended(jobs, job_id)

    assert (shown["state"], shown["matched"], shown["done"], shown["left"]) == ("running", MANY, 1, MANY - 1)
    assert _count(job) == (JobState.DONE, MANY, 0)
    assert {bench.state(task_id) for task_id in tasks} == {State.CANCELLED}
    assert [(entry.verb, entry.phase) for _, entry in _audit(bench)] == [("startJob", "end"), ("startJob", "begin")]


def test_delayed_tasks_are_all_run_now(bench, jobs):
    tasks = [bench.submit("echo", {"message": "x"}, delay=200) for _ in range(9)]
    job_id = _start(jobs, JobVerb.RETRY_NOW, TaskFilter(state="DELAYED"), canary=True)
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id) for task_id in tasks]
        job = _ended(jobs, job_id)

    assert _count(job) == (JobState.DONE, 9, 0)
    assert job.canary_passed
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert all("sent-now" in bench.hops(task_id) for task_id in tasks)


def test_dead_letters_are_redriven_and_discarded(bench, jobs):
    with running_worker(bench.settings) as worker:
        tasks = [bench.submit("echo", {"message": "x", "permanent": True}) for _ in range(6)]
        for task_id in tasks:
            bench.finished(task_id)
        redriven = _ended(jobs, _start(jobs, JobVerb.REDRIVE, TaskFilter(error_type="echo-refused"), limit=4))
        eventually(lambda: sum(bench.store.get(each).cycle for each in tasks) == 4, 20, "four have another cycle")
        for task_id in tasks:
            bench.finished(task_id)
        discarded = _ended(jobs, _start(jobs, JobVerb.DISCARD, TaskFilter(type="echo")))
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "the janitor removes them")

        assert worker.process.poll() is None
    assert (_count(redriven), _count(discarded)) == ((JobState.DONE, 4, 0), (JobState.DONE, 6, 0))
    assert all(bench.store.get(task_id).discarded for task_id in tasks)


def test_a_canary_that_fails_again_stops_its_job(bench, jobs):
    with running_worker(bench.settings, abrupt=True):
        tasks = [bench.submit("echo", {"message": "x", "permanent": True}) for _ in range(4)]
        for task_id in tasks:
            bench.finished(task_id)
        job = _ended(jobs, _start(jobs, JobVerb.REDRIVE, TaskFilter(type="echo"), canary=True))

    assert (job.state, job.reason, job.done) == (JobState.STOPPED, CANARY_FAILED, 1)
    assert sum(bench.store.get(task_id).cycle for task_id in tasks) == 1


def test_a_job_that_is_stopped_goes_no_further(bench, jobs):
    tasks = [bench.submit("echo", {"message": "x"}, delay=14) for _ in range(MANY)]
    job_id = _start(jobs, JobVerb.CANCEL, TaskFilter(type="echo"), rate=2.0)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: jobs.get(job_id).done >= 2, 30, "it has begun")
        stopped = jobs.stop(jobs.get(job_id), "requested")
        again = jobs.stop(jobs.get(job_id), "requested")
        records = [bench.finished(task_id, 40) for task_id in tasks]
    job, kept = jobs.get(job_id), bench.stores.redis.run(("PTTL", bench.stores.redis.keys.job(job_id)))[0]

    cancelled = sum(record.state is State.CANCELLED for record in records)
    assert (stopped, again) == (True, False)
    assert (job.state, job.reason) == (JobState.STOPPED, "requested")
    assert 2 <= cancelled < MANY
    assert 0 < kept <= 86_400_000


def test_no_more_jobs_run_than_may(jobs, monkeypatch):
    monkeypatch.setattr("dispatch.store.jobs.MOST_RUNNING", 2)
    first = _start(jobs, JobVerb.CANCEL, TaskFilter(type="nothing"))
    _start(jobs, JobVerb.CANCEL, TaskFilter(type="nothing"))
    third = BulkJob("j", JobVerb.CANCEL, TaskFilter(), 1, 1.0, "op", 1)
    refused = jobs.add(third)
    jobs.stop(jobs.get(first), "requested")

    assert (refused, jobs.add(third)) == (False, True)
    assert len(jobs.all()) == 3
