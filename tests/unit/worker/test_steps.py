"""What a handler may return in place of a result, and what its next step finds."""

import dataclasses
import math

import pytest
from pydantic import SecretStr

from dispatch.errors import ConfigurationError, PermanentError
from dispatch.protocol.message import CHECKPOINT, STEP
from dispatch.protocol.retry import AttemptFailed, FailureKind
from dispatch.protocol.sealing import UNREADABLE, UNSEALED, Sealing
from dispatch.protocol.waits import MAX_STATE, AskedWait
from dispatch.tasktypes import Payload, Registry, TaskType, Wait
from dispatch.worker.outcomes import StepEnded
from dispatch.worker.runner import call_handler
from dispatch.worker.steps import asked_wait, restored
from support.cases import each
from support.context import FakeContext
from support.unit_fakes import task_message

KEYS = Sealing((b"k" * 32,))


class Polled(Payload):
    order_id: str = ""


class Other(Payload):
    pass


POLLING = TaskType("echo", Payload, lambda *_: None, None, 60.0, "Poll.", state=Polled)


def _text(state):
    return asked_wait(POLLING, Wait(1, state=state), 100).state


@each(
    ("wait",),
    [
        (Wait(-1),),
        (Wait(math.inf),),
        (Wait(math.nan),),
        (Wait(True),),
        (Wait("60"),),
        (Wait(100.5),),
        (Wait(1, until="go"),),
        (Wait(1, until=("",)),),
        (Wait(1, until=("a b",)),),
        (Wait(1, until=(1,)),),
        (Wait(1, until=None),),
        (Wait(1, until=tuple(map(str, range(17)))),),
        (Wait(1, state=Other()),),
    ],
)
def test_a_wait_that_cannot_be_kept_is_a_permanent_failure(wait):
    with pytest.raises(PermanentError) as caught:
        asked_wait(POLLING, wait, 100)

    assert caught.value.type == "invalid-result"


def test_a_type_that_declares_no_state_keeps_none():
    silent = dataclasses.replace(POLLING, state=None)

    assert asked_wait(silent, Wait(100, until=["go"]), 100) == AskedWait(100.0, ("go",), None)
    with pytest.raises(PermanentError, match="its type declares none"):
        asked_wait(silent, Wait(1, state=Polled()), 100)


def test_a_state_is_ascii_and_bounded():
    room = MAX_STATE - len('{"orderId":""}')

    assert _text(Polled(order_id="ä")) == '{"orderId":"\\u00e4"}'
    assert len(_text(Polled(order_id="a" * room))) == MAX_STATE
    with pytest.raises(PermanentError) as caught:
        _text(Polled(order_id="a" * (room + 1)))
    assert caught.value.type == "state-too-large"


@each(("sealing",), [(UNSEALED,), (KEYS,)])
def test_the_next_step_finds_the_state_as_it_was(sealing):
    state = Polled(order_id="o-1 ä \U0001f916")
    message = task_message(**{STEP: 1, CHECKPOINT: sealing.seal_text(_text(state))})

    assert restored(POLLING, message, sealing) == state


@each(
    ("text", "sealing", "type_"),
    [
        ('{"orderId":1}', UNSEALED, "invalid-state"),
        ('{"unknown":"x"}', UNSEALED, "invalid-state"),
        ("[]", UNSEALED, "invalid-state"),
        ("", UNSEALED, "invalid-state"),
        ("[" * 100_000, UNSEALED, "invalid-state"),
        (UNREADABLE, UNSEALED, "invalid-state"),
        (KEYS.seal_text("{}"), UNSEALED, "undecryptable"),
        (KEYS.seal_text("{}"), Sealing((b"x" * 32,)), "undecryptable"),
    ],
)
def test_a_state_that_cannot_be_read_is_a_permanent_failure_before_the_handler(text, sealing, type_):
    called = []
    polling = dataclasses.replace(POLLING, handler=lambda *given: called.append(given))
    with pytest.raises(AttemptFailed) as caught:
        call_handler(polling, {}, FakeContext(), task_message(**{STEP: 1, CHECKPOINT: text}), sealing=sealing)

    assert (caught.value.failure.kind, caught.value.failure.type) == (FailureKind.PERMANENT, type_)
    assert not called


def test_a_type_that_no_longer_declares_a_state_can_read_none():
    with pytest.raises(PermanentError) as caught:
        restored(dataclasses.replace(POLLING, state=None), task_message(**{CHECKPOINT: "{}"}), UNSEALED)

    assert caught.value.type == "invalid-state"


def test_a_handler_that_waits_ends_its_step_and_fails_no_attempt():
    def poll(_order, ctx):
        return Wait(30, state=Polled(order_id=ctx.state.order_id + "!"), until=("finished",))

    polling = dataclasses.replace(POLLING, handler=poll)
    message = task_message(**{STEP: 1, CHECKPOINT: '{"orderId":"o"}'})
    with pytest.raises(StepEnded) as caught:
        call_handler(polling, {}, FakeContext(), message, longest_wait=60)

    assert caught.value.wait == AskedWait(30.0, ("finished",), '{"orderId":"o!"}')


class Keeping(Payload):
    token: SecretStr


def test_a_state_with_a_secret_that_pydantic_masks_is_refused_at_registration():
    with pytest.raises(ConfigurationError, match=r"Keeping\.token"):
        Registry().add(dataclasses.replace(POLLING, state=Keeping))
