"""robot.clean: what may be ordered, and what a command's end means."""

import pydantic
import pytest

from dispatch.errors import PermanentError, RetryableError
from support.cases import each
from support.context import FakeContext
from tasks.robots import CleaningState, CleanOrder
from tasks.robots import _result as result
from tasks.vendor import Command, CommandError

ORDER = {"robot": "SN-1", "areas": ["kitchen", "hall"]}


def command(state, **fields):
    return Command(name="robots/SN-1/commands/c1", state=state, **fields)


def test_an_order_has_sensible_defaults():
    order = CleanOrder.model_validate(ORDER)

    assert (order.mode, order.passes) == ("vacuum", 1)


@each(
    "changes",
    [
        {"robot": ""},
        {"robot": "../SN-1"},
        {"robot": "SN-1/commands"},
        {"robot": "SN-1\n"},
        {"robot": "S" * 65},
        {"robot": 1},
        {"areas": []},
        {"areas": [""]},
        {"areas": ["a", "a"]},
        {"areas": [str(n) for n in range(51)]},
        {"areas": "kitchen"},
        {"areas": [1]},
        {"mode": "polish"},
        {"passes": 0},
        {"passes": 4},
        {"passes": True},
        {"site": "x"},
    ],
)
def test_other_orders_are_refused(changes):
    with pytest.raises(pydantic.ValidationError):
        CleanOrder.model_validate({**ORDER, **changes})


def test_a_robot_that_finished_is_a_success():
    context = FakeContext()

    got = result(CleanOrder.model_validate(ORDER), command("SUCCEEDED"), context)

    assert got == {"robot": "SN-1", "command": "robots/SN-1/commands/c1", "state": "SUCCEEDED"}
    assert context.reports == [(100, "finished")]


@each(
    ("state", "kind", "type"),
    [
        ("FAILED", RetryableError, "robot-failed"),
        ("ABORTED", PermanentError, "robot-stopped"),
        ("CANCELLED", PermanentError, "robot-stopped"),
    ],
)
def test_any_other_end_is_an_error_with_the_reason(state, kind, type):
    ended = command(state, error=CommandError(code="STUCK", message="no way"))

    with pytest.raises(kind) as caught:
        result(CleanOrder.model_validate(ORDER), ended, FakeContext())

    assert caught.value.type == type
    assert str(caught.value).endswith(": STUCK no way")


@each(
    "answer",
    [
        "{}",
        "[]",
        "null",
        '{"name": "robots/SN-1/commands/../x", "state": "RUNNING"}',
        '{"name": "robots/SN-1/commands/x?y", "state": "RUNNING"}',
        '{"name": "x", "state": "RUNNING"}',
        '{"name": "robots/SN-1/commands/x"}',
        '{"name": "robots/SN-1/commands/x", "state": "RUNNING", "percent": 101}',
        '{"name": "robots/SN-1/commands/x", "state": "RUNNING", "percent": NaN}',
    ],
)
def test_an_answer_that_is_no_command_is_refused(answer):
    with pytest.raises(pydantic.ValidationError):
        Command.model_validate_json(answer)


@each(
    ("sent", "estimate"),
    [
        ("12.5", 12.5),
        ("0", 0),
        ("-1", None),
        ("NaN", None),
        ("1e999", None),
        ('"soon"', None),
        ("null", None),
        ("[]", None),
    ],
)
def test_an_estimate_that_makes_no_sense_is_none(sent, estimate):
    text = f'{{"name": "robots/SN-1/commands/x", "state": "RUNNING", "remainingSeconds": {sent}}}'

    assert Command.model_validate_json(text).remaining_seconds == estimate


STATE = {"command": "robots/SN-1/commands/x", "cycle": 0, "attempt": 1}


def test_a_state_of_a_newer_version_is_read_where_it_can_be():
    state = CleaningState.model_validate({**STATE, "looks": 3, "failed_polls": 1, "zone": "new"})

    assert (state.command, state.looks, state.failed_polls) == (STATE["command"], 3, 1)


@each(
    "changes",
    [
        {"command": "robots/SN-1/commands/../x"},
        {"command": "x"},
        {"command": None},
        {"attempt": 0},
        {"cycle": -1},
        {"cycle": "one"},
        {"looks": -1},
        {"failed_polls": None},
    ],
)
def test_other_states_are_refused(changes):
    with pytest.raises(pydantic.ValidationError):
        CleaningState.model_validate({**STATE, **changes})
