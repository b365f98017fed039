"""The straight path, the ladder and the DLQ, with a real worker."""

import datetime as dt
import itertools

import pytest

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import open_bench, running_worker


@pytest.fixture(scope="module")
def bench(module_settings):
    with open_bench(module_settings) as made, running_worker(module_settings, abrupt=True):
        yield made


@pytest.fixture(scope="module")
def tasks(bench):
    """One of each kind, all at once: so their waits go by side by side."""
    payloads = {
        "plain": {"message": "hello"},
        "third time": {"message": "third time", "failTimes": 2},
        "last rung": {"message": "x", "failTimes": 9},
        "never": {"message": "never", "failTimes": 99},
        "permanent": {"message": "no", "permanent": True},
    }
    return {kind: bench.submit("echo", payload) for kind, payload in payloads.items()}


def test_a_task_succeeds_once_and_its_record_shows_it(bench, tasks):
    task_id = tasks["plain"]
    record = bench.finished(task_id)

    assert record.state is State.SUCCEEDED
    assert record.result["message"] == "hello"
    assert record.attempt == 1
    assert bench.hops(task_id)[0] == "accepted"
    assert {"published", "started", "succeeded"} <= set(bench.hops(task_id))


def test_a_permanent_error_goes_to_the_dlq_at_once(bench, tasks):
    record = bench.finished(tasks["permanent"], 5)

    assert record.state is State.DEAD_LETTERED
    assert record.attempt == 1
    assert record.dead_reason == "permanent"


def test_a_task_that_fails_climbs_rung_by_rung_and_then_succeeds(bench, tasks):
    task_id = tasks["third time"]
    record = bench.finished(task_id)
    delayed = [hop for hop in bench.store.hops(task_id) if hop["kind"] == "delayed"]
    waits = [dt.datetime.fromisoformat(hop["until"]) - dt.datetime.fromisoformat(hop["at"]) for hop in delayed]

    assert record.state is State.SUCCEEDED
    assert record.attempt == 3
    assert [hop["queue"] for hop in delayed] == ["robot.retry.q.1m", "robot.retry.q.5m"]
    assert [wait.total_seconds() for wait in waits] == [1, 2]


def test_no_rung_is_cut_short(bench, tasks):
    task_id = tasks["last rung"]
    bench.finished(task_id)
    hops = bench.store.hops(task_id)
    failed = [hop["at"] for hop in hops if hop["kind"] == "failed"]
    started = [hop["at"] for hop in hops if hop["kind"] == "started"]

    waits = [_seconds(b) - _seconds(a) for a, b in zip(failed, itertools.islice(started, 1, None), strict=False)]

    assert [wait >= rung.seconds for wait, rung in zip(waits, bench.settings.ladder.rungs, strict=True)] == [True] * 3


def test_an_exhausted_task_is_fail_and_its_dead_letter_has_the_reason(bench, tasks):
    task_id = tasks["never"]
    record = bench.finished(task_id)
    dead = {tasks[kind] for kind in ("last rung", "never", "permanent")}
    eventually(lambda: bench.depth(names.DEAD_QUEUE) == len(dead), 5, "each dead letter is in the DLQ, once")

    assert record.state is State.DEAD_LETTERED
    assert record.attempt == 4
    assert record.dead_reason == "retries-exhausted"
    assert {dead_letter.task_id for dead_letter in bench.stores.dead_letters.list().items} == dead


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()
