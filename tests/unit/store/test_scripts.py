"""The Lua scripts agree with Python; the circuit breaker; which of Redis's errors mean "not now"."""

import ast
import re
from pathlib import Path

import pytest
import redis.exceptions

from dispatch.config.settings import load
from dispatch.errors import StoreError, StoreUnavailable
from dispatch.protocol.message import MAX_AHEAD
from dispatch.protocol.record import State
from dispatch.store import scripts as module
from dispatch.store.cancellations import CancelAnswer
from dispatch.store.claims import ClaimAnswer
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.idempotency import KeyState
from dispatch.store.scripts import BREAK, MAX_HOPS, MESSAGE_TTL, CircuitBreaker, RedisHandle, scripts
from dispatch.store.transitions import MISSING
from support.cases import each
from support.unit_fakes import ManualClock

ROOT = Path(__file__).parents[3]
LUA = {path.stem: path.read_text() for path in (ROOT / "dispatch/store/lua").rglob("*.lua")}
TASK = {path.stem for path in (ROOT / "dispatch/store/lua/task").glob("[!_]*.lua")}

#: What a Lua script compares a state with, or sets it to.
_STATES = re.compile(r"(?:\bstate|get\('state'\)|'state',|TERMINAL\.|DEAD\.)\s*(?:==|~=|,)?\s*'([A-Z_]+)'")


def literals(text):
    """The words in capitals, those that name a command of Redis apart."""
    return set(re.findall(r"(?<!call\()'([A-Z_]+)'", text))


def test_the_constants_that_precede_a_tasks_script_are_pythons():
    prelude = scripts()["claim"].source.splitlines()[:5]
    tables = [set(re.findall(r"(\w+) = true", line)) for line in prelude]

    assert prelude[0] == f"local MAX_HOPS = {MAX_HOPS}"
    assert prelude[1] == f"local MESSAGE_TTL = {MESSAGE_TTL}"
    assert prelude[2].startswith("local TERMINAL = ")
    assert tables[2] == {state.value for state in State if state.terminal}
    assert prelude[3].startswith("local DEAD = ")
    assert tables[3] == {state.value for state in State if state.dead}
    assert prelude[4] == f"local MAX_AHEAD = {MAX_AHEAD}"


def test_a_full_redis_refuses_of_a_tasks_scripts_only_what_is_new():
    admitted = {name for name in TASK if "redis.call('HDEL', KEYS[1], '')" in scripts()[name].source}

    assert TASK - admitted == {"accept", "signal"}


def test_only_the_scripts_of_a_task_have_them():
    assert {name for name, script in scripts().items() if "local MAX_HOPS" in script.source} == TASK


@each("name", sorted(LUA))
def test_each_state_that_a_script_sets_or_compares_is_one(name):
    assert set(_STATES.findall(LUA[name])) <= {state.value for state in State}


def test_the_states_of_the_scripts_are_found():
    assert set(_STATES.findall(LUA["claim"])) == {"CANCELLED", "REJECTED", "RUNNING", "QUEUED"}
    assert set(_STATES.findall(LUA["complete"])) == {"SUCCEEDED"}
    assert {"SCHEDULED", "REJECTED"} <= set(_STATES.findall(LUA["reject"]))


@each(
    ("script", "answers"),
    [
        ("claim", {*ClaimAnswer, MISSING}),
        (
            "decide",
            {
                "OK",
                DecisionAnswer.ROUTE,
                DecisionAnswer.REFUSED,
                DecisionAnswer.UNCLAIMED,
                DecisionAnswer.CANCELLED,
                MISSING,
            },
        ),
        ("send_now", {"OK", DecisionAnswer.ROUTE, DecisionAnswer.REFUSED}),
        ("cancel", {*CancelAnswer}),
        ("redrive", {"OK", DecisionAnswer.ROUTE, DecisionAnswer.REFUSED, MISSING}),
        ("record_dead", {*DeadLetterAnswer, MISSING}),
        ("reserve_idempotency_key", {*KeyState, "REUSED", "BUSY"}),
    ],
)
def test_a_script_answers_what_python_expects(script, answers):
    lines = [line for line in re.findall(r"return (.*)", LUA[script]) if "'" in line]
    given = set().union(*(literals(line) for line in lines))

    assert given == {str(answer) for answer in answers}


def names_in_python():
    """The scripts that the store and what is built on it name: the first argument of a few calls."""
    found = set()
    for path in (ROOT / "dispatch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            called, owner = node.func.attr, ast.unparse(node.func.value)
            first = node.args[0]
            runs = called == "script" or (
                called in {"run", "command", "rebuild", "rebuild_missing"} and "transitions" in owner
            )
            if runs and isinstance(first, ast.Constant):
                found.add(first.value)
    return found


def test_each_script_is_used_and_each_that_is_used_is_there():
    assert names_in_python() == set(scripts())


def test_a_script_begins_with_the_names_of_its_arguments():
    helpers = {"_common", "_reserve", "_rights"}
    without = {name for name, text in LUA.items() if "unpack(ARGV)" not in text} - helpers

    assert without == {"accept", "unflag_stale", "unlist", "use", "vital", "write_job"}  # a row of entries, or of words


def test_a_script_is_run_by_its_digest():
    script = scripts()["unlist"]

    assert script(["robot:index"], "t", 1.5) == ("EVALSHA", script.sha, 1, "robot:index", "t", 1.5)


@pytest.fixture
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_breaker_fails_calls_at_once_for_a_while(clock):
    breaker = CircuitBreaker()
    breaker.enter()
    breaker.failed()
    clock.now += BREAK - 0.01
    with pytest.raises(StoreUnavailable):
        breaker.enter()


def test_a_breaker_lets_one_call_at_a_time_try_again(clock):
    breaker = CircuitBreaker()
    breaker.failed()
    clock.now += BREAK
    breaker.enter()
    with pytest.raises(StoreUnavailable):
        breaker.enter()
    clock.now += BREAK
    breaker.enter()


def test_a_breaker_is_closed_by_an_answer(clock):
    breaker = CircuitBreaker()
    breaker.failed()
    clock.now += BREAK
    breaker.enter()
    breaker.succeeded()
    for _ in range(3):
        breaker.enter()


class FakeClient:
    """Answers with what it is given, or raises it."""

    def __init__(self, *answers):
        self.answers, self.sent = list(answers), []

    def run(self, commands):
        self.sent.append(list(commands))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gather = run


def handle(*answers):
    made = RedisHandle(load({}), timeout=1.0)
    made._client = FakeClient(*answers)
    return made


@each(
    "error",
    [
        redis.exceptions.ConnectionError("refused"),
        redis.exceptions.TimeoutError("silent"),
        redis.exceptions.OutOfMemoryError("OOM"),
        redis.exceptions.ReadOnlyError("a replica"),
        redis.exceptions.ClusterDownError("down"),
        redis.exceptions.ResponseError("MISCONF Redis is configured to save"),
        redis.exceptions.ResponseError("LOADING Redis is loading the dataset in memory"),
        redis.exceptions.ResponseError("Command # 1 (EVALSHA x) of pipeline caused error: BUSY Redis is busy"),
        redis.exceptions.NoPermissionError("this user has no permissions to run the 'set' command"),
        redis.exceptions.InvalidResponse('Protocol error, got "H" as reply type byte'),
    ],
)
def test_an_outage_is_unavailable(error):
    with pytest.raises(StoreUnavailable):
        handle(error).run(("TIME",))


@each("text", ["WRONGTYPE Operation", "Command # 1 (GET BUSY ) of pipeline caused error: ERR x"])
def test_a_refusal_is_our_mistake_and_no_outage(text):
    with pytest.raises(StoreError) as caught:
        handle(redis.exceptions.ResponseError(text)).run(("TIME",))

    assert type(caught.value) is StoreError


def test_after_a_silence_nothing_is_sent_for_a_while(clock):
    redis_handle = handle(redis.exceptions.TimeoutError("silent"), ["yes"])
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            redis_handle.run(("TIME",))

    assert len(redis_handle._client.sent) == 1

    clock.now += BREAK

    assert redis_handle.run(("TIME",)) == ["yes"]


def test_a_refusal_is_an_answer_so_the_next_call_is_sent():
    redis_handle = handle(redis.exceptions.ResponseError("WRONGTYPE"), ["yes"])
    with pytest.raises(StoreError):
        redis_handle.run(("GET", "x"))

    assert redis_handle.run(("TIME",)) == ["yes"]


def test_scripts_that_redis_has_lost_go_along_the_second_time():
    redis_handle = handle(["OK"], [redis.exceptions.NoScriptError("NOSCRIPT"), 1], ["OK"])
    command = redis_handle.script("unlist", ["robot:index"], "t", 1.0)
    redis_handle.run(command)
    answers = redis_handle.gather(command, ("ZADD", "z", 1, "t"))
    _, first, second = redis_handle._client.sent

    assert answers == ["OK", 1]
    assert first == [command, ("ZADD", "z", 1, "t")]
    assert second == [("EVAL", LUA["unlist"], 1, "robot:index", "t", 1.0)]  # the other has been carried out


def test_the_first_run_of_a_script_brings_its_source_until_the_connection_is_lost():
    redis_handle = handle(["OK", 1, "OK"], ["OK"], redis.exceptions.ConnectionError("gone"), ["OK"])
    command = redis_handle.script("unlist", ["robot:index"], "t", 1.0)
    with_source = ("EVAL", LUA["unlist"], 1, "robot:index", "t", 1.0)
    redis_handle.run(command, ("TIME",), command)
    redis_handle.run(command)
    with pytest.raises(StoreUnavailable):
        redis_handle.run(command)
    redis_handle._breaker.succeeded()
    redis_handle.run(command)

    assert redis_handle._client.sent == [[with_source, ("TIME",), command], [command], [command], [with_source]]


def test_an_error_in_the_place_of_an_answer_is_raised():
    redis_handle = handle([1, redis.exceptions.ResponseError("WRONGTYPE")])

    with pytest.raises(StoreError, match="WRONGTYPE"):
        redis_handle.run(("TIME",), ("GET", "x"))
