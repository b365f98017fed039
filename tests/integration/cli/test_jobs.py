"""``celery jobs`` on real servers: a job is counted, started, followed and stopped, and the audit log has its begin and its end."""

import json
import types

import pytest
from click.testing import CliRunner

import topology
from celery_app import create_celery
from dispatch.broker import provision
from dispatch.cli import jobs as module
from dispatch.cli.audit import audit
from dispatch.protocol import labels
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.record import State
from support.stores import Stores
from support.worker import running_worker

PAYLOAD = {"message": "hi"}


@pytest.fixture
def world(settings):
    """Stores, a function that runs a command, and one that accepts a task."""
    provision.apply(topology.broker_map(settings), settings)
    stores, celery = Stores(settings), create_celery(settings)

    def run(*words):
        return CliRunner().invoke(module.jobs, words, obj=types.SimpleNamespace(app=celery))

    def accept(**given):
        headers = {
            "id": new_task_id(), "task": "echo", "x-principal": "ada", "x-cycle": 0, "x-seq": 0, "x-attempt": 1,
            "x-labels": labels.written(given),
        }  # fmt: skip
        made = Message(json.dumps([[PAYLOAD], {}, {}]).encode(), headers)
        stores.tasks.accept(made, max_attempts=4, idempotency_key=None)
        stores.tasks.mark_published(made, queue="q", max_attempts=4, idempotency_key=None, state=State.DELAYED)
        return made.task_id

    yield types.SimpleNamespace(stores=stores, run=run, accept=accept, settings=settings)
    stores.close()


def _audited(world, verb):
    page = world.stores.audit.page(principal=None, verb=verb, limit=9, cursor=None)
    return [(one.entry.principal.rpartition("/")[2], one.entry.phase, one.entry.result) for one in page.items]


CHOSEN = ("--label", "batch=b-1", "--as", "ops")


def test_a_job_is_counted_started_shown_and_stopped(world):
    for _ in range(3):
        world.accept(batch="b-1")
    counted = world.run("start", "cancel", *CHOSEN, "--dry-run")
    asked = world.run("start", "cancel", *CHOSEN)
    started = json.loads(world.run("start", "cancel", *CHOSEN, "--limit", "2", "--yes", "--json").stdout)
    job_id = started["jobId"]
    listed, shown = world.run("list"), world.run("show", job_id)
    stopped = world.run("stop", job_id, "--as", "ops")
    followed = world.run("show", job_id, "--watch")
    again = world.run("stop", job_id, "--as", "ops")

    assert counted.stdout == "3 tasks would be taken\n"
    assert (asked.exit_code, len(world.stores.audit.page(principal=None, verb=None, limit=9, cursor=None).items)) == (
        2,
        4,
    )
    assert (started["verb"], started["limit"], started["filter"]["labels"]) == ("cancel", 2, {"batch": "b-1"})
    assert (started["matched"], started["left"]) == (None, None)
    assert job_id in listed.stdout
    assert "running: 0 done, 0 failed" in shown.stdout
    assert (stopped.exit_code, followed.exit_code, again.exit_code) == (0, 1, 1)
    assert "stopped (requested): 0 done" in followed.stdout
    assert json.loads(world.run("show", job_id, "--json").stdout)["reason"] == "requested"
    assert [result for *_, result in _audited(world, "stopJob")] == ["job-finished", "ok"]
    assert _audited(world, "startJob") == [("ops", "end", "requested"), ("ops", "begin", "ok")]
    assert world.run("show", "no-such-job").exit_code == 1


def test_a_job_is_followed_to_its_end(world):
    for _ in range(7):
        world.accept(batch="b-1")
    world.accept(batch="b-2")
    with running_worker(world.settings, abrupt=True):
        done = world.run("start", "cancel", *CHOSEN, "--rate", "5", "--yes", "--watch")
        job_id = json.loads(world.run("list", "--json").stdout)[0]["jobId"]
        ended = world.run("show", job_id, "--wait", "--json")
    job = json.loads(ended.stdout)

    assert (done.exit_code, ended.exit_code) == (0, 0)
    assert "running: 0 done" in done.stdout
    assert any(f"of 7 done, 0 failed, 0 passed over, {7 - n} left" in done.stdout for n in range(1, 7))
    assert done.stdout.splitlines()[-1] == "done: 7 of 7 done, 0 failed, 0 passed over; at most 1000"
    assert (job["state"], job["matched"], job["matchedAll"], job["done"], job["left"]) == ("done", 7, True, 7, 0)
    assert _audited(world, "startJob") == [("ops", "end", "ok"), ("ops", "begin", "ok")]


def test_a_job_of_a_group_of_dead_letters_and_its_entries_in_the_audit_log_from_a_shell(world):
    obj = types.SimpleNamespace(app=create_celery(world.settings))
    job = json.loads(
        world.run("start", "redrive", "--fingerprint", "0b9f0d5a3c1e7742", "--yes", "--json", "--as", "ops").stdout
    )
    world.run("stop", job["jobId"], "--as", "ops")
    shown = CliRunner().invoke(audit, ["--verb", "startJob"], obj=obj)
    entries = CliRunner().invoke(audit, ["--principal", job["requestedBy"], "--limit", "2", "--json"], obj=obj)
    none = CliRunner().invoke(audit, ["--verb", "newApiKey"], obj=obj)

    assert job["filter"]["fingerprint"] == "0b9f0d5a3c1e7742"
    assert [line.split()[2:6] for line in shown.stdout.splitlines()[1:]] == [
        ["startJob", "end", "requested", "redrive"], ["startJob", "begin", "ok", "redrive"],
    ]  # fmt: skip
    assert [(one["verb"], one["phase"]) for one in map(json.loads, entries.stdout.splitlines())] == [
        ("startJob", "end"),
        ("stopJob", None),
    ]
    assert none.stdout == "no entries\n"


@pytest.mark.parametrize("verb", ["cancel", "discard"])
def test_a_job_that_ends_tasks_for_good_needs_something_that_chooses_them(world, verb):
    assert world.run("start", verb, "--yes").exit_code == 2
