"""What Redis keeps of a waiting task's message makes the same message again."""

import dataclasses
import json

from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_app import create_celery
from dispatch.broker import celery_producer
from dispatch.config import settings as configuration
from dispatch.protocol import message as headers
from dispatch.protocol.copies import redriven_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.packing import packed
from dispatch.protocol.record_fields import accepted, parse
from dispatch.protocol.sealing import Sealing
from support.cases import each

CELERY = create_celery(configuration.load({}))
TASK_ID = new_task_id()

_TEXT = st.text(max_size=20)
_VALUES = st.none() | st.booleans() | st.integers(-5, 2**60) | st.sampled_from([0.0, 1.0, -0.0]) | _TEXT
_ANY = st.recursive(_VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2))
_NAMES = st.sampled_from([
    "lang", "id", "root_id", "task", "stamps", "retries", "argsrepr", "group", "-", "x-labels", "x-principal", "x-accepted-at",
    "x-request-id", "traceparent", "x-cycle", "x-seq", "x-attempt", "x-wakes-at", "origin", "timelimit",
])  # fmt: skip


def sent(payload, **own):
    """A message as the gateway sends it."""
    ours = {
        headers.CYCLE: 0, headers.SEQ: 0, headers.ATTEMPT: 1, headers.REQUEST_ID: "rq-1", headers.TRACEPARENT: "00-a",
        headers.PRINCIPAL: "shop", headers.ACCEPTED_AT: 1_795_775_590_262, **own,
    }  # fmt: skip
    made = []
    celery_producer.dispatch(
        CELERY.tasks["echo"], payload, task_id=TASK_ID, headers=ours, send=lambda one, *_: made.append(one)
    )
    return made[0]


def stored(message):
    """The text that Redis keeps, and the message that is read from it and the record's fields."""
    fields = accepted(message, 4, at=message.moment(headers.ACCEPTED_AT) or 7, key="")
    text = packed(message, fields)
    as_text = {name: str(value) for name, value in fields.items()}
    return text, parse(message.task_id, {**as_text, "state": "QUEUED"}, text).message


def exactly(message):
    """With the types of values: 1 is no True."""
    return dataclasses.replace(message, headers={}), {name: repr(value) for name, value in message.headers.items()}


@settings(max_examples=200)
@given(st.dictionaries(_NAMES, _ANY, max_size=4), st.sets(_NAMES, max_size=3), st.dictionaries(_TEXT, _ANY, max_size=3))
def test_it_makes_the_same_message_whatever_differs_from_the_usual(changes, gone, payload):
    message = sent(payload)
    kept = {name: value for name, value in {**message.headers, **changes}.items() if name not in gone - {"id"}}
    message = dataclasses.replace(message, headers={**kept, "id": TASK_ID})

    assert exactly(stored(message)[1]) == exactly(message)


@each(
    "changes",
    [
        {"body": b"\xff\xfe"}, {"body": b"[[{}], {}, {}]"}, {"body": b""}, {"content_type": "text/plain"}, {"content_encoding": None},
        {"correlation_id": None}, {"routing_key": "elsewhere"},
        {"body": b'[[{"a":\n1}], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'},
        {"body": b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'},
    ],
)  # fmt: skip
def test_an_unusual_message_makes_itself_again(changes):
    message = dataclasses.replace(sent({"message": "hi"}), **changes)

    assert exactly(stored(message)[1]) == exactly(message)


def test_a_later_copy_makes_itself_again():
    message = redriven_copy(sent({"message": "hi"})).message

    assert exactly(stored(message)[1]) == exactly(message)


def test_a_sealed_body_makes_itself_again():
    message = Sealing.parse(Fernet.generate_key().decode()).seal(sent({"message": "hi"}))

    assert exactly(stored(message)[1]) == exactly(message)


def test_what_the_version_before_stored_is_read():
    message = sent({"message": "hi"})

    assert Message.from_json(message.to_json()) == message
    assert parse(TASK_ID, {"state": "QUEUED"}, message.to_json()).message == message


def test_of_a_usual_message_there_is_little_but_its_payload():
    payload = {"message": "grüezi" * 20}
    text, _ = stored(sent(payload))

    assert len(text) < len(json.dumps(payload)) + 80
    assert "traceparent" not in text
