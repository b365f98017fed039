"""The fake that users' tests run on, used as they would."""

import asyncio
import threading

import pytest

from robot_dispatch_client import (
    ConnectionFailed,
    IdempotencyKeyReused,
    QueueDepthExceeded,
    RetryPolicy,
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


@pytest.fixture
def fake():
    return FakeDispatch()


@pytest.fixture
def client(fake):
    with fake.client() as client:
        yield client


def test_tasks_end_as_their_type_does(fake, client):
    fake.on("clean", result={"areas": 2})
    fake.on("refused", error="upstream-rejected", detail="no such robot")
    fake.on("double", run=lambda payload: payload["number"] * 2)
    done, dead = client.wait(client.submit("clean", {})), client.wait(client.submit("refused", {}))
    doubled, broken = client.wait(client.submit("double", {"number": 4})), client.wait(client.submit("double", {}))

    assert (done.result, dead.state, dead.error.type, doubled.result) == (
        {"areas": 2},
        "DEAD_LETTERED",
        "upstream-rejected",
        8,
    )
    assert broken.error.type == "KeyError"
    with pytest.raises(TaskFailed, match="no such robot"):
        dead.raise_for_failure()
    assert [letter.task_id for letter in client.dead_letters(error_type="upstream-rejected")] == [dead.task_id]


def test_a_task_waits_until_it_is_ended(fake, client):
    task = client.submit("clean", {"robot": "R-1"}, labels={"robot": "R-1"})
    with pytest.raises(WaitTimeout):
        client.wait(task, timeout=0.01)
    threading.Thread(target=fake.succeed, args=(task.task_id, "clean")).start()

    assert client.wait(task, timeout=60).result == "clean"
    assert [hop.kind for hop in client.stream(task)] == ["accepted", "published", "started", "succeeded"]
    assert fake.tasks[task.task_id].payload == {"robot": "R-1"}
    assert [found.task_id for found in client.list(labels={"robot": "R-1"})] == [task.task_id]


def test_the_async_client_is_served_as_well(fake):
    async def use():
        async with fake.async_client() as client:
            task = await client.submit("clean", {})
            waiting = asyncio.create_task(client.wait(task, timeout=60))
            await asyncio.sleep(0)
            fake.progress(task.task_id, 50, "half")
            fake.succeed(task.task_id)
            kinds = [hop.kind async for hop in client.stream(task)]
            listed = [found.task_id async for found in client.list()]
            return await waiting, kinds, listed

    task, kinds, listed = asyncio.run(use())

    assert (task.state, task.progress.percent, listed) == ("SUCCEEDED", 50, [task.task_id])
    assert kinds[-1] == "succeeded"


def test_a_lost_answer_is_one_task_and_a_refusal_is_repeated(fake, client):
    fake.cut()
    fake.refuse("queue-depth-exceeded", times=2)
    client.submit("clean", {})

    assert len(fake.tasks) == 1
    assert len(fake.requests) == 4


def test_refusals_and_cuts_that_last_are_errors(fake):
    client = fake.client(retry=RetryPolicy(total=0))
    fake.refuse("queue-depth-exceeded", retry_after=7)
    with pytest.raises(QueueDepthExceeded) as caught:
        client.submit("clean", {})
    assert caught.value.retry_after == 7
    fake.cut(late=False)
    with pytest.raises(ConnectionFailed) as cut:
        client.submit("clean", {})
    assert cut.value.unsent
    assert fake.tasks == {}
    client.close()


def test_errors_are_those_of_the_api(client):
    strict = FakeDispatch(types=["robot.clean"], api_key="rk_a_b")
    with strict.client() as typed, pytest.raises(UnknownTaskType) as caught:
        typed.submit("robot.clan", {})
    assert caught.value.nearest == ["robot.clean"]
    with strict.client(api_key="rk_other") as other, pytest.raises(Unauthenticated):
        other.submit("robot.clean", {})
    client.submit("clean", {}, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        client.submit("clean", {"other": 1}, idempotency_key="k")
    with pytest.raises(TaskNotFound):
        client.get("none")
    with pytest.raises(ValidationFailed):
        client.request("POST", "/v1/tasks", body={"type": "clean"})


def test_the_operators_verbs(fake, client):
    fake.on("refused", error="upstream-rejected")
    dead = client.wait(client.submit("refused", {"robot": "R-0"}))
    fake.on("refused", result="ok")
    again = client.redrive(dead, {"robot": "R-1"})
    assert (again.cycle, client.wait(again).result, client.payload(again).payload) == (1, "ok", {"robot": "R-1"})
    with pytest.raises(TaskNotDead):
        client.redrive(again)
    waiting = client.submit("clean", {})
    client.signal(waiting, "finished", {"by": "R-1"})
    assert fake.tasks[waiting.task_id].signals == [("finished", {"by": "R-1"})]
    assert client.cancel(waiting).state == "CANCELLED"
    with pytest.raises(TaskTerminal):
        client.cancel(again)


def test_many_are_submitted_once(fake, client):
    given = [Submission(type="clean", payload={"number": number}) for number in range(3)]
    first = [verdict.unwrap().task_id for verdict in client.submit_many(given)]
    again = client.submit_many(given)

    assert [verdict.unwrap().task_id for verdict in again] == first == list(fake.tasks)
    assert all(verdict.replayed for verdict in again)
    assert [task.task_id for task in client.list(page_size=2)] == first[::-1]
    assert client.stats().states == {"QUEUED": 3}
