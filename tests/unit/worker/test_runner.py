"""A run in a child: the claim's answer, the handler's result, and the recording of a success."""

import dataclasses
import json
import types

import pytest

from dispatch.config.settings import load
from dispatch.errors import PermanentError, StoreUnavailable, Throttled
from dispatch.protocol.copies import parked_copy
from dispatch.protocol.retry import AttemptFailed, FailureKind, parse_ladder
from dispatch.store.claims import ClaimAnswer, Claimed
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from dispatch.worker import runner as module
from dispatch.worker.outcomes import FENCE, OWNER, WIRE, ClaimUnanswered, DecidedBefore, LeaseTaken, NothingToDo
from dispatch.worker.runner import GIVE_UP, MAX_RESULT, Runner, call_handler
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


class FakeClaims:
    """Answers a claim with `answer`, and completes."""

    def __init__(self):
        self.answer = Claimed(ClaimAnswer.RUN)
        self.claim = Failing()
        self.complete = Failing(result=True)

    def bind(self):
        claim = lambda *args: self.claim(*args) or self.answer  # noqa: E731
        return types.SimpleNamespace(claim=claim, complete=self.complete)


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def claims():
    return FakeClaims()


@pytest.fixture
def run(claims):
    def deliver(task_type=GREET, ladders=None, **headers):
        message = task_message(**headers)
        request = types.SimpleNamespace(hostname="w@test", get={WIRE: message, OWNER: "owner", FENCE: "fence"}.get)
        runner = Runner(claims.bind(), ladders or Ladders(LADDER), load({}).handlers(), lost_runs=3)
        return runner.run(task_type, request, {"message": "x"})

    return deliver


def test_a_success_is_recorded_before_it_is_returned(run, claims):
    result = run()
    message, ticket, recorded, attempts = claims.complete.calls[0]

    assert result == recorded == {"greeted": True}
    assert (message.seq, ticket.owner, ticket.fence, ticket.worker, attempts) == (3, "owner", "fence", "w@test", 4)


def test_a_type_with_its_own_ladder_claims_and_completes_with_its_own_attempts(run, claims):
    run(ladders=Ladders(LADDER, {"echo": LADDER.subset(["5m"])}))

    assert (claims.claim.calls[0][2], claims.complete.calls[0][3]) == (2, 2)


@each(
    ("answer", "outcome"),
    [
        (Claimed(ClaimAnswer.BUSY), LeaseTaken),
        (Claimed(ClaimAnswer.DONE), NothingToDo),
        (Claimed(ClaimAnswer.STALE), NothingToDo),
        (Claimed(ClaimAnswer.CANCELLED), NothingToDo),
        (Claimed(ClaimAnswer.ROUTE, parked_copy(task_message())), DecidedBefore),
        (Claimed(ClaimAnswer.LOST), AttemptFailed),
    ],
)
def test_a_claim_that_is_not_granted_runs_nothing(run, claims, answer, outcome):
    claims.answer = answer
    handled = []
    with pytest.raises(outcome):
        run(typed(lambda *args: handled.append(args)))

    assert handled == []


def test_a_copy_that_was_decided_before_brings_the_decided_copy_along(run, claims):
    copy = parked_copy(task_message())
    claims.answer = Claimed(ClaimAnswer.ROUTE, copy)
    with pytest.raises(DecidedBefore) as caught:
        run()

    assert caught.value.copy == copy


def test_a_claim_without_an_answer_runs_nothing(run, claims):
    claims.claim.errors = [StoreUnavailable()]
    with pytest.raises(ClaimUnanswered):
        run()

    assert claims.complete.calls == []


def test_a_result_is_recorded_again_until_redis_answers(run, claims, clock):
    claims.complete.errors = [StoreUnavailable()] * 6
    result = run()

    assert result == {"greeted": True}
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_a_result_that_cannot_be_recorded_in_time_parks_the_copy(run, claims, clock):
    claims.complete.errors = [StoreUnavailable()] * 1_000
    with pytest.raises(AttemptFailed) as caught:
        run()

    assert (caught.value.failure.kind, caught.value.failure.type) == (FailureKind.OUTAGE, "store-unavailable")
    assert sum(clock.slept) <= GREET.time_limit - GIVE_UP


def test_a_result_that_the_fence_refuses_is_another_runs_task(run, claims):
    claims.complete.result = False
    with pytest.raises(LeaseTaken):
        run()


@each(
    ("result", "kept"),
    [(None, {}), ({}, {}), ({"a": [1, None]}, {"a": [1, None]}), (types.MappingProxyType({"a": 1}), {"a": 1})],
)
def test_what_a_handler_may_return(result, kept):
    assert call_handler(typed(lambda *_: result), {}, FakeContext()) == kept


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
    text = "x" * (MAX_RESULT - len(json.dumps({"a": ""})))

    assert call_handler(typed(lambda *_: {"a": text}), {}, FakeContext()) == {"a": text}


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
