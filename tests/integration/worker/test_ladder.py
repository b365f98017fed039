"""The straight path, the ladder and the DLQ, with a real worker."""

import datetime as dt
import itertools

import pytest

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import bench, running_worker


@pytest.fixture
def desk(settings):
    with bench(settings) as made:
        yield made


def test_a_task_succeeds_once_and_its_record_says_so(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "hello"})
        record = desk.finished(task_id)

    assert record.state is State.SUCCEEDED
    assert record.result["message"] == "hello"
    assert record.attempt == 1
    assert desk.hops(task_id)[0] == "accepted"
    assert {"published", "started", "succeeded"} <= set(desk.hops(task_id))


def test_a_task_that_fails_climbs_rung_by_rung_and_then_succeeds(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "third time", "failTimes": 2})
        record = desk.finished(task_id)
    delayed = [hop for hop in desk.store.hops(task_id) if hop["kind"] == "delayed"]
    waits = [dt.datetime.fromisoformat(hop["until"]) - dt.datetime.fromisoformat(hop["at"]) for hop in delayed]

    assert record.state is State.SUCCEEDED
    assert record.attempt == 3
    assert [hop["queue"] for hop in delayed] == ["robot.retry.q.1m", "robot.retry.q.5m"]
    assert [wait.total_seconds() for wait in waits] == [1, 2]


def test_no_rung_is_cut_short(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "x", "failTimes": 9})
        desk.finished(task_id)
    hops = desk.store.hops(task_id)
    failed = [hop["at"] for hop in hops if hop["kind"] == "failed"]
    started = [hop["at"] for hop in hops if hop["kind"] == "started"]

    waits = [_seconds(b) - _seconds(a) for a, b in zip(failed, itertools.islice(started, 1, None), strict=False)]

    assert [wait >= rung.seconds for wait, rung in zip(waits, desk.settings.ladder.rungs, strict=True)] == [True] * 3


def test_an_exhausted_task_is_fail_and_its_letter_says_why(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "never", "failTimes": 99})
        record = desk.finished(task_id)
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 1, 5, "the letter is in the DLQ")

    assert record.state is State.DEAD_LETTERED
    assert record.attempt == 4
    assert record.dead_reason == "retries-exhausted"
    assert desk.store.dead_letters().items[0].task_id == task_id


def test_a_permanent_error_goes_to_the_dlq_at_once(desk):
    with running_worker(desk.settings):
        task_id = desk.submit("echo", {"message": "no", "permanent": True})
        record = desk.finished(task_id, 5)

    assert record.state is State.DEAD_LETTERED
    assert record.attempt == 1
    assert record.dead_reason == "permanent"


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()
