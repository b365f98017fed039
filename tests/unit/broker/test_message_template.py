"""A message that is filled into a template is the one that `apply_async` makes."""

import dataclasses

import pytest
from celery import signals
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_app import create_celery
from dispatch.broker import celery_producer, message_template
from dispatch.broker.celery_producer import capturing, dispatch
from dispatch.config import settings as configuration
from dispatch.protocol.message import ACCEPTED_AT, ATTEMPT, CYCLE, PRINCIPAL, REQUEST_ID, SEQ, TRACEPARENT
from dispatch.protocol.sealing import Sealing
from dispatch.protocol.signatures import MessageKeys

CELERY = create_celery(configuration.load({}))
SEALING = Sealing.parse(Fernet.generate_key().decode())
SIGNING = MessageKeys.parse("k1:" + "s" * 32)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_PAYLOADS = st.dictionaries(st.text(), _JSON, max_size=5)
_IDS = st.uuids(version=4).map(str) | st.text("abcdefXYZ0123456789._:-", min_size=1, max_size=128)
_OWN = st.fixed_dictionaries({
    CYCLE: st.just(0), SEQ: st.just(0), ATTEMPT: st.just(1), REQUEST_ID: st.text(max_size=128),
    TRACEPARENT: st.text(max_size=55), PRINCIPAL: st.text(max_size=64), ACCEPTED_AT: st.integers(0, 2**53),
})  # fmt: skip


def by_celery(task, payload, task_id, headers):
    sent = []
    celery_producer._apply(task, payload, task_id, headers, capturing(lambda *one: sent.append(one)))
    return sent[0]


def dispatched(task, payload, task_id, headers, **options):
    sent = []
    dispatch(task, payload, task_id=task_id, headers=headers, send=lambda *one: sent.append(one), **options)
    return sent[0]


@pytest.fixture
def applied(monkeypatch):
    """The task ids that `apply_async` was called for; no type has a template yet."""
    called = []
    CELERY.tasks["echo"].message_templates.clear()
    usual = celery_producer._apply
    monkeypatch.setattr(celery_producer, "_apply", lambda *given: (called.append(given[2]), usual(*given)))
    return called


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["echo", "robot.clean"]), _PAYLOADS, _IDS, _OWN)
def test_a_filled_template_is_what_apply_async_makes(name, payload, task_id, headers):
    task = CELERY.tasks[name]
    made, expected = (way(task, payload, task_id, headers) for way in (dispatched, by_celery))

    assert made == expected
    assert list(made[0].headers) == list(expected[0].headers)  # their order is on the wire
    assert SIGNING.sign(made[0]) == SIGNING.sign(expected[0])

    sealed = dispatched(task, payload, task_id, headers, sealing=SEALING)[0]
    assert sealed.body != expected[0].body
    assert SEALING.open(sealed) == expected[0]


def test_apply_async_is_not_called_once_there_is_a_template(applied):
    for number in range(3):
        dispatched(CELERY.tasks["echo"], {"message": "x"}, f"t-{number}", {"x-seq": 0})
    applied.clear()
    dispatched(CELERY.tasks["echo"], {"message": "x"}, "t-4", {"x-seq": 7})

    assert applied == []


def test_what_does_not_fit_goes_through_apply_async(applied):
    task = CELERY.tasks["echo"]
    dispatched(task, {"message": "x"}, "t-1", {"x-seq": 0})
    applied.clear()
    other_headers = dispatched(task, {"message": "x"}, "t-2", {"x-seq": 0, "x-more": 1})[0]

    assert other_headers.headers["x-more"] == 1

    def stamp(headers=None, **_):
        headers["x-stamp"] = "theirs"

    signals.before_task_publish.connect(stamp)
    try:
        stamped = dispatched(task, {"message": "x"}, "t-3", {"x-seq": 0})[0]
    finally:
        signals.before_task_publish.disconnect(stamp)

    assert stamped.headers["x-stamp"] == "theirs"
    assert applied == ["t-2", "t-3"]


def test_a_template_that_makes_another_message_is_not_used():
    def make(payload, task_id, headers):
        message, exchange, key = by_celery(CELERY.tasks["echo"], payload, task_id, headers)
        return (
            dataclasses.replace(message, headers={**message.headers, "x-serial": len(task_id), "ä": task_id}),
            exchange,
            key,
        )

    assert message_template.cut(make, {"x-seq": 0}) is None
