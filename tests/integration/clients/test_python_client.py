"""The Python client's verbs on a real gateway with a real worker; most scenarios run on the client's fake as well."""

import contextlib
import datetime as dt
import uuid

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from dispatch.cli import keys as keys_command
from robot_dispatch_client import (
    IdempotencyKeyReused,
    InsufficientScope,
    JobFinished,
    JobNotFound,
    KeyNotInUse,
    NotFound,
    NotWaiting,
    NoWebhook,
    PauseNotFound,
    ScheduleChanged,
    ScheduleExists,
    ScheduleNotFound,
    State,
    Submission,
    TaskFailed,
    TaskNotDead,
    TaskNotFound,
    TaskTerminal,
    Unauthenticated,
    UnknownTaskType,
    ValidationFailed,
    WaitTimeout,
)
from robot_dispatch_client.testing import FakeDispatch
from support import api_clients
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually
from support.worker import open_bench, running_worker

REFUSED = {"message": "no", "permanent": True}


@pytest.fixture(scope="module")
def url(module_settings):
    """Of a gateway with a worker behind it."""
    with (
        open_bench(module_settings),
        running_gateway(module_settings, free_port()) as (http, _, _),
        running_worker(module_settings, abrupt=True),
    ):
        yield str(http.base_url)


@pytest.fixture(params=api_clients.KINDS)
def client(request, url):
    made = api_clients.make(request.param, url, api_key="")
    yield made
    made.close()


def echo(payload):
    if payload.get("permanent"):
        raise EchoRefused
    return {"message": payload["message"]}


class EchoRefused(Exception):
    type = "echo-refused"


@pytest.fixture(params=["gateway", "fake"])
def either(request):
    """A client of the gateway, or of the fake with the same task type: users' tests can rely on what both do."""
    if request.param == "gateway":
        made = api_clients.make("sync", request.getfixturevalue("url"), api_key="")
    else:
        fake = FakeDispatch(types=["echo", "http.request", "robot.clean"])
        fake.on("echo", run=echo)
        made = fake.client()
    with made:
        yield made


# --- the same on the fake -------------------------------------------------------------------------
def test_a_task_is_submitted_and_waited_for(either):
    task = either.submit("echo", {"message": "hi"}, request_id="rq-42", labels={"robot": "r-7"})
    done = either.wait(task, timeout=60)

    assert (task.state, task.request_id, task.done) == (State.QUEUED, "rq-42", False)
    assert (done.status, done.result["message"], done.labels) == ("SUCCESS", "hi", {"robot": "r-7"})
    assert done.finished_at.utcoffset() == dt.timedelta()
    kinds = [hop.kind for hop in either.events(done)]
    assert [kind for kind in kinds if kind in {"accepted", "published", "started", "succeeded"}] == [
        "accepted", "published", "started", "succeeded",
    ]  # fmt: skip
    assert [hop.seq for hop in either.stream(done)] == list(range(1, len(kinds) + 1))
    assert list(either.stream(done, after=len(kinds))) == []


def test_a_key_is_one_task(either):
    first = either.submit("echo", {"message": "hi"}, idempotency_key='"quoted" \\key'.replace(" ", "_"))
    again = either.submit("echo", {"message": "hi"}, idempotency_key='"quoted"_\\key')

    assert again.task_id == first.task_id
    with pytest.raises(IdempotencyKeyReused) as caught:
        either.submit("echo", {"message": "other"}, idempotency_key='"quoted"_\\key')
    assert caught.value.idempotency_key == '"quoted"_\\key'


def test_a_dead_letter_is_read_redriven_and_discarded(either):
    dead = either.wait(either.submit("echo", REFUSED), timeout=60)
    with pytest.raises(TaskFailed, match="echo-refused"):
        dead.raise_for_failure()
    letter = eventually(lambda: _letter(either, dead.task_id), 20, "it is a dead letter")
    again = either.redrive(dead)
    ended = either.wait(again, timeout=60)
    eventually(lambda: _letter(either, dead.task_id), 20, "it is a dead letter again")
    either.discard(dead)

    assert (letter.error.type, letter.payload["permanent"], letter.dead_reason) == ("echo-refused", True, "permanent")
    assert (again.cycle, ended.cycle, ended.state) == (1, 1, State.DEAD_LETTERED)
    with pytest.raises(TaskNotFound):
        either.dead_letter(dead)


def test_a_redrive_may_have_another_payload(either):
    dead = either.wait(either.submit("echo", REFUSED), timeout=60)
    eventually(lambda: _letter(either, dead.task_id), 20, "it is a dead letter")
    mended = either.wait(either.redrive(dead, {"message": "yes"}), timeout=60)

    assert (mended.state, mended.result["message"]) == (State.SUCCEEDED, "yes")
    with pytest.raises(TaskNotDead) as caught:
        either.redrive(dead)
    assert caught.value.state == State.SUCCEEDED


def _letter(client, task_id):
    with contextlib.suppress(TaskNotFound):
        return client.dead_letter(task_id)


def test_many_at_once_are_accepted_each_by_itself(either):
    given = [Submission(type="echo", payload={"message": str(number)}) for number in range(5)]
    wrong = Submission(type="none", payload={})
    found = either.submit_many([*given, wrong])
    again = either.submit_many(given)

    assert [verdict.unwrap().task_id for verdict in again] == [verdict.unwrap().task_id for verdict in found[:5]]
    assert isinstance(found[5].error, UnknownTaskType)
    assert [either.wait(verdict.unwrap(), timeout=60).result["message"] for verdict in found[:5]] == list("01234")


def test_a_task_that_does_not_run_is_cancelled_at_once(either):
    later = either.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]}, delay=10)
    cancelled, again = either.cancel(later), either.cancel(later)

    assert (cancelled.state, cancelled.cancel_requested, again.state) == (State.CANCELLED, True, State.CANCELLED)
    done = either.wait(either.submit("echo", {"message": "x"}), timeout=60)
    with pytest.raises(TaskTerminal) as caught:
        either.cancel(done)
    with pytest.raises((TaskTerminal, NotWaiting)):
        either.retry_now(done)
    with pytest.raises(TaskTerminal):
        either.signal(done, "finished", {"by": "r-7"})
    assert caught.value.state == State.SUCCEEDED


def test_refusals_are_errors_of_their_kind(either):
    with pytest.raises(UnknownTaskType) as unknown:
        either.submit("ehco", {})
    with pytest.raises(ValidationFailed) as invalid:
        either.request("POST", "/v1/tasks", body={"type": "echo", "payload": 7})
    with pytest.raises(TaskNotFound) as missing:
        either.get("none")

    assert unknown.value.nearest == ["echo"]
    assert invalid.value.errors[0].pointer == "/payload"
    assert (missing.value.status, bool(missing.value.request_id)) == (404, True)


def test_a_job_redrives_what_matches_and_is_waited_for(either):
    labels = {"batch": uuid.uuid4().hex}
    dead = [either.wait(either.submit("echo", REFUSED, labels=labels), timeout=60) for _ in range(3)]
    for task in dead:
        eventually(lambda task=task: _letter(either, task.task_id), 20, "it is a dead letter")
    counted = either.count_job("redrive", labels=labels, error_type="echo-refused")
    job = either.start_job("redrive", labels=labels, rate_per_second=100, limit=2)
    done = either.wait_for_job(job, timeout=60)

    assert (counted.matched, counted.complete, job.state, job.filter["labels"]) == (3, True, "running", labels)
    assert (done.state, done.done, done.failed, done.ended) == ("done", 2, 0, True)
    assert sorted(either.wait(task, timeout=60).cycle for task in dead) == [0, 1, 1]
    assert job.job_id in {each.job_id for each in either.jobs()}
    with pytest.raises(JobFinished):
        either.stop_job(job)
    with pytest.raises(JobNotFound):
        either.job("none")


def test_a_bulk_redrive_is_waited_for_until_it_is_no_longer_listed(either):
    dead = either.wait(either.submit("echo", REFUSED | {"message": uuid.uuid4().hex}), timeout=60)
    letter = eventually(lambda: _letter(either, dead.task_id), 20, "it is a dead letter")
    groups = [group for group in either.dead_letter_groups() if group.error_type == "echo-refused"]
    bulk = either.redrive_many(type="echo", error_type="echo-refused", rate_per_second=100)
    done = either.wait_for_job(bulk, timeout=60)

    assert letter.fingerprint in {group.fingerprint for group in groups}
    assert (done.job_id, done.verb, done.state, done.done) == (bulk.job_id, "redrive", "done", None)
    assert either.wait(dead, timeout=60).cycle == 1


def test_what_is_paused_is_held_until_it_is_resumed(either):
    key = f"r-{uuid.uuid4().hex}"
    pause = either.pause(f"key:local:{key}", "maintenance", dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    task = either.submit("echo", {"message": "x"}, concurrency_key=key, delay=3)  # workers see it within 2 s
    held = eventually(lambda: (found := either.get(task.task_id)).state == State.HELD and found, 20, "it is held")
    shown = [each for each in either.pauses() if each.what == pause.what]
    either.resume(pause.what)
    done = either.wait(task, timeout=60)

    assert (pause.reason, held.held_by, shown[0].held) == ("maintenance", pause.what, 1)
    assert task.concurrency_key == held.concurrency_key == f"local:{key}"
    assert (done.state, done.attempt) == (State.SUCCEEDED, 1)
    assert "held" in {hop.kind for hop in either.events(task)}
    audited = [next(iter(either.audit(verb=verb))).target for verb in ("pauseTasks", "resumeTasks")]
    assert audited == [pause.what] * 2
    with pytest.raises(PauseNotFound):
        either.resume(pause.what)


def test_schedules_have_their_verbs(either):
    schedules = either.schedules
    made = schedules.put("nightly", "echo", {"message": "x"}, "0 3 * * *", timezone="Europe/Berlin", overlap="queue")
    with pytest.raises(ScheduleExists):
        schedules.put("nightly", "echo", {"message": "x"}, "0 3 * * *", create_only=True)
    with pytest.raises(ScheduleChanged):
        schedules.put("nightly", "echo", {"message": "x"}, "0 3 * * *", revision=made.revision + 7)
    listed = [schedule.name for schedule in schedules.all()]
    paused, resumed = schedules.pause("nightly"), schedules.resume("nightly")
    ran = either.wait(schedules.run_now("nightly"), timeout=60)
    shown = schedules.get("nightly")
    schedules.delete("nightly")

    assert (made.timezone, made.overlap) == ("Europe/Berlin", "queue")
    assert (listed, paused.paused, resumed.paused, ran.state) == (["nightly"], True, False, State.SUCCEEDED)
    assert (shown.last_run, shown.fired) == (None, 0)  # it was not due
    assert schedules.all() == []
    with pytest.raises(ScheduleNotFound):
        schedules.get("nightly")


def test_what_is_not_there_is_an_error_of_its_kind(either):
    done = either.wait(either.submit("echo", {"message": "x"}), timeout=60)
    with pytest.raises(NoWebhook) as caught:
        either.redeliver_webhook(done)
    with pytest.raises(KeyNotInUse):
        either.key("none")
    with pytest.raises(TaskNotFound):
        either.discard("none")
    with pytest.raises(NotFound):
        either.queue("none")

    assert caught.value.state == State.SUCCEEDED


# --- of the gateway alone -------------------------------------------------------------------------
def test_hops_are_followed_as_they_happen(client):
    task = client.submit("echo", {"message": "a\u2028b\x85c", "sleepSeconds": 0.3})
    seen = list(client.stream(task))

    assert [hop.seq for hop in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].kind == "succeeded"
    assert client.get(task.task_id).result["message"] == "a\u2028b\x85c"


def test_lists_are_read_page_by_page(client):
    label = {"batch": client.submit("echo", {"message": "x"}).task_id}
    ids = [client.submit("echo", {"message": str(number)}, labels=label).task_id for number in range(5)]
    found = [task.task_id for task in client.list(labels=label, type="echo", page_size=2)]
    since = client.get(ids[2]).created_at

    assert found == ids[::-1]
    assert {task.task_id for task in client.list(labels=label, since=since)} >= set(ids[2:])
    assert list(client.list(labels=label, status="FAIL", until=since)) == []


def test_a_task_for_later_is_accepted_and_its_wait_times_out(client):
    later = client.submit("echo", {"message": "x"}, delay=dt.timedelta(seconds=12), deadline=60)
    run_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=14)
    at = client.submit("echo", {"message": "x"}, run_at=run_at)

    assert (later.state, at.state) == (State.DELAYED, State.DELAYED)
    assert abs((at.wakes_at - run_at).total_seconds()) < 2
    assert later.deadline_at > later.wakes_at
    with pytest.raises(WaitTimeout) as caught:
        client.wait(later, timeout=1.2)
    assert caught.value.task.task_id == later.task_id


def test_a_wait_is_ended_by_the_operator_and_a_signal_is_kept(client):
    later = client.submit("echo", {"message": "now"}, delay=14)
    signalled = client.signal(later, "go", {"by": "r-7"}, idempotency_key=later.task_id)
    client.signal(later, "go", {"by": "r-7"}, idempotency_key=later.task_id)
    client.retry_now(later)
    done = client.wait(later, timeout=60)
    kinds = [hop.kind for hop in client.events(done)]

    assert signalled.task_id == later.task_id
    assert done.result["message"] == "now"
    assert (kinds.count("signalled"), kinds.count("sent-now")) == (1, 1)


def test_a_task_is_looked_at_from_every_side(client):
    task = client.wait(client.submit("echo", {"message": "x"}), timeout=60)

    assert [kind.name for kind in client.task_types()] == ["echo", "http.request", "robot.clean"]
    assert client.task_type("echo").payload_schema["type"] == "object"
    assert {queue.name for queue in client.queues()} >= {"robot.task.q", client.queue("robot.task.dlq").name}
    assert client.stats().counted >= 1
    assert list(client.children(task)) == []
    eventually(lambda: [worker.host for worker in client.workers()], 20, "the worker has its heartbeat")


def test_operators_pause_resume_and_redrive_many(client):
    pause = client.pause("key:none", "maintenance", dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    paused = [each.what for each in client.pauses()]
    client.resume("key:none")
    counted = client.redrive_many(type="none", dry_run=True)

    audited = next(iter(client.audit(verb="pauseTasks")))

    assert (audited.target, audited.result) == ("key:none", "ok")
    assert (pause.reason, paused, client.pauses()) == ("maintenance", ["key:none"], [])
    assert (
        counted.dry_run,
        counted.matched,
        [job.state for job in client.jobs() if not job.ended],
        client.dead_letter_groups(type="none"),
    ) == (
        True,
        0,
        [],
        [],
    )


def test_who_holds_a_key_is_shown_while_its_task_runs(client):
    given = f"r-{uuid.uuid4().hex}"
    task = client.submit("echo", {"message": "x", "sleepSeconds": 4}, concurrency_key=given)
    key = task.concurrency_key
    held = eventually(lambda: _key(client, key), 20, "the task holds its key")
    listed = [each.key for each in client.keys()]  # noqa: SIM118 - it is a verb
    client.wait(task, timeout=60)

    assert ([holder.task_id for holder in held.holders], held.limit, held.waiting) == ([task.task_id], 1, 0)
    assert key in listed
    assert key.startswith("local:")
    eventually(lambda: _key(client, key) is None, 20, "no task holds it")


def _key(client, key):
    with contextlib.suppress(KeyNotInUse):
        return client.key(key)


def test_keys_and_scopes_are_checked(settings):
    path = f"{settings.run_dir}-keys"
    keyed = settings.model_copy(update={"api_keys_file": path, "api_key_pepper": SecretStr("pepper")})
    words = ["new", "--id", "shop", "--scopes", "tasks:read"]
    made = CliRunner().invoke(
        keys_command.keys, words, env={"DISPATCH_API_KEYS_FILE": path, "DISPATCH_API_KEY_PEPPER": "pepper"}
    )
    key = made.stdout.strip()
    with open_bench(keyed), running_gateway(keyed, free_port()) as (http, _, _):
        url = str(http.base_url)
        with api_clients.make("sync", url, api_key=key) as reader, api_clients.make("sync", url, api_key="") as none:
            listed = list(reader.list())
            with pytest.raises(InsufficientScope, match="tasks:write"):
                reader.submit("echo", {"message": "x"})
            with pytest.raises(Unauthenticated) as caught:
                none.get("a")

    assert (listed, caught.value.status) == ([], 401)
