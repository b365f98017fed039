"""What a webhook's receiver gets, and how it is signed."""

import base64
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol import webhooks
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.record import Record, State
from dispatch.protocol.webhooks import EVENTS, FAILED, SUCCEEDED, Webhook
from support.cases import each
from support.processes import ROOT

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def record(**changes):
    given = {
        "task_id": new_task_id(),
        "type": "echo",
        "principal": "ada",
        "state": State.SUCCEEDED,
        "cycle": 0,
        "seq": 0,
    }
    rest = {
        "attempt": 1,
        "max_attempts": 4,
        "revision": 4,
        "created_at": 1_000,
        "updated_at": 2_000,
        "finished_at": 2_000,
    }
    return Record(**{**given, **rest, **changes})


def page():
    """The verification that the page for receivers shows."""
    text = (Path(ROOT) / "docs/how-to/receive-webhooks.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    made = {}
    exec(compile(code, "receive-webhooks.md", "exec"), made)
    return made["is_genuine"]


@given(st.binary(max_size=200), st.integers(0, 1))
def test_the_pages_receiver_takes_what_either_secret_has_signed(body, which):
    secrets = [KEY, b"o" * 24]
    headers = webhooks.headers(secrets, "evt-1", int(time.time()), body)
    secret = "whsec_" + base64.b64encode(secrets[which]).decode()
    is_genuine = page()

    assert is_genuine(secret, headers, body)
    assert not is_genuine(secret, headers, body + b" ")
    assert not is_genuine(secret, {**headers, "webhook-id": "evt-2"}, body)
    assert not is_genuine(secret, {**headers, "webhook-timestamp": str(int(time.time()) - 301)}, body)
    assert not is_genuine("whsec_" + base64.b64encode(b"x" * 24).decode(), headers, body)


def test_a_signature_is_that_of_the_standards_example():
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = webhooks.headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@each(
    ("state", "event"),
    [
        (State.SUCCEEDED, SUCCEEDED),
        (State.DEAD_LETTERED, FAILED),
        (State.EXPIRED, FAILED),
        (State.CANCELLED, FAILED),
        (State.REJECTED, None),
        (State.RUNNING, None),
        (State.RETRY_WAIT, None),
    ],
)
def test_an_end_has_its_event(state, event):
    assert webhooks.event_of(state) == event


def test_each_cycle_and_each_refusal_has_an_id_of_its_own_that_is_always_the_same():
    task = record()
    again = record(task_id=task.task_id, cycle=1)
    ids = {webhooks.nth_delivery(task, 0), webhooks.nth_delivery(task, 1), webhooks.nth_delivery(again, 0)}

    assert len(ids) == 3
    assert webhooks.event_id(task) == webhooks.nth_delivery(task, 0)


def test_the_body_is_the_task_also_with_half_a_surrogate_pair_in_its_result():
    text = webhooks.document(record(result={"text": "\ud800"}))

    assert text.isascii()
    assert json.loads(text)["data"]["result"] == {"text": "\ud800"}


@each("events", [EVENTS, (FAILED,)])
def test_a_webhook_is_read_as_it_was_written(events):
    wanted = Webhook("https://shop.example/x", events)

    assert webhooks.read(wanted.written()) == wanted
    assert Webhook.of(wanted.to_json()) == wanted


@each("text", [None, "", "x", "[]", "{}", '{"url": 1, "events": []}', '{"url": "x"}', '{"url": "x", "events": 7}'])
def test_what_is_no_webhook_is_none(text):
    assert webhooks.read(text) is None


@each(
    ("text", "problem"),
    [
        ("abc", "secret 1"),
        (SECRET.removeprefix("whsec_"), "secret 1"),
        ("whsec_" + base64.b64encode(b"short").decode(), "secret 1"),
        (f"{SECRET},whsec_!", "secret 2"),
        (f"{SECRET},{SECRET},{SECRET}", "3 secrets"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_its_text(text, problem):
    with pytest.raises(ValueError, match=problem) as caught:
        webhooks.secrets(text)

    assert text not in str(caught.value)


def test_secrets_are_read():
    assert webhooks.secrets(f" {SECRET} ,") == (KEY,)
    assert webhooks.secrets("") == ()
