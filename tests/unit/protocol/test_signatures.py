"""A signature covers what a forger could profit from, and nothing that the broker or a dead-lettering changes."""

import datetime as dt

import pytest

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.protocol.copies import dead_copy, delayed_copy, next_copy, parked_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.delays import seconds_of
from dispatch.protocol.message import TOO_LARGE, Message
from dispatch.protocol.retry import Dead, Failure, FailureKind
from dispatch.protocol.signatures import NO_KEYS, MessageKeys
from support.cases import each

FIRST, SECOND = "a" * 32, "b" * 32
KEYS = MessageKeys.parse(f"one:{FIRST}, two:{SECOND}")
MESSAGE = Message(
    b'[[{"message":"x"}],{},{}]',
    {
        "id": "t1", "task": "echo", "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": "ada", "eta": None,
        "expires": None, "x-accepted-at": 1_700_000_000_000, "traceparent": "00-a", "retries": 0,
    },
    routing_key="robot.task.dispatch.echo",
)  # fmt: skip
SIGNED = KEYS.sign(MESSAGE)


def test_the_first_key_signs_and_every_key_verifies():
    rotated = MessageKeys.parse(f"two:{SECOND},one:{FIRST}")

    assert SIGNED.text("x-signature").startswith("one:")
    assert rotated.sign(MESSAGE).text("x-signature").startswith("two:")
    assert [keys.fault(message) for keys in (KEYS, rotated) for message in (SIGNED, rotated.sign(MESSAGE))] == [""] * 4


@each(
    ("header", "value"),
    [
        ("id", "t2"), ("task", "http.request"), ("x-principal", "eve"), ("x-cycle", 1), ("x-seq", 1), ("x-attempt", 2),
        ("x-accepted-at", 1), ("eta", "2030-01-01T00:00:00Z"), ("expires", "2020-01-01T00:00:00Z"), ("x-cycle", "0"),
        ("x-seq", False), ("x-principal", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), ("id", "\ud800"), ("x-signature", "one:0"),
        ("x-signature", "one:\u00e9"),
    ],
)  # fmt: skip
def test_a_changed_header_makes_it_wrong(header, value):
    assert KEYS.fault(SIGNED.with_headers(**{header: value})) == "its signature is wrong"


def test_labels_are_signed_and_a_message_without_has_the_signature_that_it_always_had():
    labelled = KEYS.sign(MESSAGE.with_headers(**{"x-labels": "customer=acme"}))
    forged = [labelled.with_headers(**{"x-labels": "customer=evil"}), labelled.with_headers("x-labels")]
    forged.append(SIGNED.with_headers(**{"x-labels": "customer=acme"}))

    assert KEYS.fault(labelled) == ""
    assert [KEYS.fault(each) for each in forged] == ["its signature is wrong"] * 3
    assert SIGNED.headers["x-signature"] == "one:2d90c0994cef4303af73432ed253f3e0a6592189f7cc1fcc023a2cc390919093"


def test_a_parent_is_signed():
    child = KEYS.sign(MESSAGE.with_headers(**{"x-parent-id": "t0"}))
    forged = [child.with_headers(**{"x-parent-id": "t9"}), child.with_headers("x-parent-id")]

    assert KEYS.fault(child) == ""
    assert [KEYS.fault(each) for each in forged] == ["its signature is wrong"] * 2


def test_the_key_of_another_effect_is_signed():
    mended = KEYS.sign(MESSAGE.with_headers(**{"x-effect-key": "t.1"}))

    assert KEYS.fault(mended) == ""
    assert KEYS.fault(mended.with_headers("x-effect-key")) == "its signature is wrong"


def test_another_body_or_another_reading_of_it_is_wrong():
    others = [
        Message(b'[[{"message":"y"}],{},{}]', SIGNED.headers),
        Message(MESSAGE.body, SIGNED.headers, content_type="text/plain"),
        Message(MESSAGE.body, SIGNED.headers, content_encoding="utf-16"),
    ]

    assert [KEYS.fault(other) for other in others] == ["its signature is wrong"] * 3


def test_what_the_broker_and_a_dead_lettering_add_changes_nothing():
    died = dead_copy(SIGNED, Reason.UNKNOWN_TYPE, "no such type").message
    on_its_way = SIGNED.with_headers(
        **{"x-death": [{"reason": "expired"}], "x-delivery-count": 3, "traceparent": "00-b"}
    )

    assert [KEYS.fault(message) for message in (died, on_its_way, parked_copy(SIGNED).message)] == ["", "", ""]


def test_a_next_copy_must_be_signed_again():
    copy = next_copy(SIGNED, Failure(FailureKind.RETRYABLE, "boom", "x"), Dead(Reason.PERMANENT), 1).message

    assert KEYS.fault(copy) == "its signature is wrong"
    assert KEYS.fault(KEYS.sign(copy)) == ""


@each(
    ("headers", "fault"),
    [
        ({"x-signature": None}, "it is not signed"),
        ({"x-signature": "three:00"}, "it is signed with a key that is not in DISPATCH_MESSAGE_KEYS"),
        ({"x-signature": 7}, "it is signed with a key that is not in DISPATCH_MESSAGE_KEYS"),
        ({TOO_LARGE: "5 MiB"}, "only the beginning of its body was kept, so its signature can't be verified"),
    ],
)
def test_a_fault_names_what_is_wrong(headers, fault):
    assert KEYS.fault(SIGNED.with_headers(**headers)) == fault


def test_while_keys_are_introduced_what_is_not_signed_passes_and_what_is_wrong_does_not():
    introducing = MessageKeys.parse(f"one:{FIRST}", accept_unsigned=True)

    assert introducing.fault(MESSAGE) == ""
    assert introducing.fault(SIGNED.with_headers(**{"x-seq": 9})) == "its signature is wrong"


def test_without_keys_all_passes_and_a_signature_that_would_not_fit_any_more_is_taken_off():
    assert NO_KEYS.fault(MESSAGE) == ""
    assert NO_KEYS.sign(SIGNED) == MESSAGE


@pytest.mark.parametrize(
    "text",
    [
        "secret-without-id-secret-without-id",
        f"one:{FIRST[:31]}",
        f"one:{FIRST},one:{SECOND}",
        f":{FIRST}",
        f"a b:{FIRST}",
    ],
    ids=["no id", "too short", "an id twice", "an empty id", "an id with a space"],
)
def test_wrong_keys_stop_the_start_and_are_not_printed(text):
    with pytest.raises(ConfigurationError, match="DISPATCH_MESSAGE_KEYS: ") as refusal:
        load({"DISPATCH_MESSAGE_KEYS": text})

    assert not any(secret in str(refusal.value) for secret in (FIRST[:31], SECOND, "without-id"))


def test_keys_are_in_no_repr():
    settings = load({"DISPATCH_MESSAGE_KEYS": f"one:{FIRST}"})

    assert FIRST not in f"{settings!r}{settings.signing!r}"


def test_the_time_that_a_task_was_submitted_for_is_signed_where_there_is_one():
    later = KEYS.sign(MESSAGE.with_headers(**{"x-wakes-at": 1_800_000_000_000}))

    assert KEYS.fault(later) == ""
    assert KEYS.fault(later.with_headers(**{"x-wakes-at": 1_900_000_000_000})) == "its signature is wrong"
    assert KEYS.fault(later.with_headers("x-wakes-at")) == "its signature is wrong"
    assert KEYS.fault(SIGNED.with_headers(**{"x-wakes-at": 1})) == "its signature is wrong"


def test_where_a_task_is_between_its_waits_is_signed():
    step = KEYS.sign(MESSAGE.with_headers(**{"x-step": 1, "x-step-at": 5, "x-checkpoint": "{}"}))
    forged = [
        step.with_headers(**{name: value}) for name, value in (("x-step", 2), ("x-step-at", 6), ("x-checkpoint", "[]"))
    ]

    assert KEYS.fault(step) == ""
    assert {KEYS.fault(each) for each in [*forged, step.with_headers("x-checkpoint")]} == {"its signature is wrong"}


def test_a_delay_is_kept_when_a_signature_is_taken_off_or_put_on():
    delayed = delayed_copy(SIGNED, 5).message

    assert seconds_of(MessageKeys().sign(delayed).headers) == seconds_of(KEYS.sign(delayed).headers) == 5
