"""A run in a child: the handler's result, and the recording of a success that something follows."""

import dataclasses
import json
import types

import pytest

from dispatch.config.settings import load
from dispatch.errors import PermanentError, StoreUnavailable, Throttled
from dispatch.protocol.retry import AttemptFailed, FailureKind, parse_ladder
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from dispatch.worker import runner as module
from dispatch.worker.outcomes import FENCE, OWNER, RESULT, WIRE, LeaseTaken
from dispatch.worker.run_metrics import GIVE_UP
from dispatch.worker.runner import MAX_RESULT, Runner, call_handler
from support.cases import each
from support.context import FakeContext
from support.unit_fakes import Failing, ManualClock, task_message

LADDER = parse_ladder("1m=60,5m=300,30m=1800")


class Greeting(Payload):
    message: str = "hi"


def greet(_order, _ctx):
    return {"greeted": True}


GREET = TaskType("echo", Greeting, greet, None, 60.0, "Greet.")


def typed(handler):
    return dataclasses.replace(GREET, handler=handler)


def failure_of_run(handler, payload=None):
    with pytest.raises(AttemptFailed) as caught:
        call_handler(typed(handler), payload or {}, FakeContext())
    failure = caught.value.failure
    return failure.kind, failure.type


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class World:
    """A runner, and what it records."""

    def __init__(self):
        self.complete = Failing(result=True)
        self.result = []

    def run(self, task_type=GREET, ladders=None, links=None, **headers):
        fields = {WIRE: task_message(**headers), OWNER: "owner", FENCE: "fence", RESULT: self.result, **(links or {})}
        request = types.SimpleNamespace(hostname="w@test", get=fields.get)
        claims = types.SimpleNamespace(complete=self.complete)
        runner = Runner(claims, ladders or Ladders(LADDER), load({}).handlers())
        return runner.run(task_type, request, {"message": "x"})


@pytest.fixture
def world():
    return World()


CHAIN = {"chain": [{"task": "echo"}]}


def test_a_result_is_left_for_the_main_process_to_record(world):
    assert world.run() == {"greeted": True}
    assert (world.result, world.complete.calls) == (['{"greeted":true}'], [])


@each("links", [CHAIN, {"callbacks": [{"task": "echo"}]}])
def test_a_success_that_something_follows_is_recorded_before_it_is_returned(links):
    world = World()
    result = world.run(links=links)
    message, ticket, recorded, attempts = world.complete.calls[0]

    assert result == recorded == {"greeted": True}
    assert (message.seq, ticket.owner, ticket.fence, ticket.worker, attempts) == (3, "owner", "fence", "w@test", 4)
    assert world.result == []


def test_a_type_with_its_own_ladder_completes_with_its_own_attempts(world):
    world.run(ladders=Ladders(LADDER, {"echo": LADDER.subset(["5m"])}), links=CHAIN)

    assert world.complete.calls[0][3] == 2


def test_such_a_result_is_recorded_again_until_redis_answers(world, clock):
    world.complete.errors = [StoreUnavailable()] * 6
    result = world.run(links=CHAIN)

    assert result == {"greeted": True}
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_one_that_cannot_be_recorded_in_time_parks_the_copy(world, clock):
    world.complete.errors = [StoreUnavailable()] * 1_000
    with pytest.raises(AttemptFailed) as caught:
        world.run(links=CHAIN)

    assert (caught.value.failure.kind, caught.value.failure.type) == (FailureKind.OUTAGE, "store-unavailable")
    assert sum(clock.slept) <= GREET.time_limit - GIVE_UP


def test_one_that_the_fence_refuses_is_another_runs_task(world):
    world.complete.result = False
    with pytest.raises(LeaseTaken):
        world.run(links=CHAIN)


@each(
    ("result", "kept"),
    [(None, {}), ({}, {}), ({"a": [1, None]}, {"a": [1, None]}), (types.MappingProxyType({"a": 1}), {"a": 1})],
)
def test_what_a_handler_may_return(result, kept):
    assert call_handler(typed(lambda *_: result), {}, FakeContext()) == (kept, json.dumps(kept, separators=(",", ":")))


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"a": value}
    return value


CIRCULAR = {}
CIRCULAR["self"] = CIRCULAR


@each(
    ("result", "name"),
    [
        ([1], "invalid-result"),
        ("text", "invalid-result"),
        ({"a": {1, 2}}, "invalid-result"),
        ({"a": float("nan")}, "invalid-result"),
        ({("a",): 1}, "invalid-result"),
        (CIRCULAR, "invalid-result"),
        (nested(100_000), "invalid-result"),
        ({"a": "x" * MAX_RESULT}, "result-too-large"),
    ],
    ids=["a list", "text", "a set", "not a number", "a tuple as a key", "a circle", "too deep", "too large"],
)
def test_a_result_that_is_no_json_object_fails_for_good(result, name):
    assert failure_of_run(lambda *_: result) == (FailureKind.PERMANENT, name)


def test_a_result_of_just_the_allowed_size_is_kept():
    text = "x" * (MAX_RESULT - len('{"a":""}'))

    assert call_handler(typed(lambda *_: {"a": text}), {}, FakeContext())[0] == {"a": text}


def test_a_payload_that_is_not_valid_never_reaches_the_handler():
    handled = []

    assert failure_of_run(handled.append, {"message": 7}) == (FailureKind.PERMANENT, "invalid-payload")
    assert handled == []


@each(
    ("error", "kind", "name"),
    [
        (PermanentError("no", type="bad-order"), FailureKind.PERMANENT, "bad-order"),
        (Throttled("busy"), FailureKind.THROTTLED, "throttled"),
        (ZeroDivisionError("oops"), FailureKind.RETRYABLE, "ZeroDivisionError"),
    ],
)
def test_what_a_handler_raises_is_its_failure(error, kind, name):
    assert failure_of_run(Failing(error)) == (kind, name)
