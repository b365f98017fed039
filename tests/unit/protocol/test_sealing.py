"""What is sealed is opened by every key that is there, and by nothing else."""

import base64
import dataclasses
import itertools

import pytest
from cryptography.fernet import Fernet

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.protocol.message import MAX_ERROR, MAX_MESSAGE, Message
from dispatch.protocol.record_fields import parse
from dispatch.protocol.sealing import SEALED_TYPE, UNREADABLE, UNREADABLE_RESULT, UNSEALED, SealError, Sealing
from support.cases import each

OLD, NEW, OTHER = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n", b"x"))
SEALING = Sealing.parse(f"{NEW}, {OLD}")
BODY = b'[[{"message":"secret"}],{},{}]'
MESSAGE = Message(BODY, {"id": "t1", "task": "echo"}, routing_key="robot.task.dispatch.echo")


def test_a_sealed_message_is_raw_fernet_with_its_headers_in_clear_and_opens_as_it_was():
    sealed = SEALING.seal(MESSAGE)

    assert Fernet(NEW).decrypt(base64.urlsafe_b64encode(sealed.body)) == BODY
    assert (sealed.content_type, sealed.content_encoding, sealed.headers) == (SEALED_TYPE, "binary", MESSAGE.headers)
    assert SEALING.open(sealed) == SEALING.open(Message.from_json(sealed.to_json())) == MESSAGE


def test_the_first_key_seals_and_every_key_opens():
    before, after = Sealing.parse(OLD), Sealing.parse(NEW)

    assert SEALING.open(before.seal(MESSAGE)) == SEALING.open(after.seal(MESSAGE)) == MESSAGE
    assert after.open(SEALING.seal(MESSAGE)) == MESSAGE
    with pytest.raises(SealError, match="not in DISPATCH_ENCRYPTION_KEYS"):
        before.open(SEALING.seal(MESSAGE))


def test_plain_before_the_keys_seals_nothing_and_opens_everything():
    between = Sealing.parse(f"plain,{OLD}")

    assert (between.active, SEALING.active, UNSEALED.active) == (False, True, False)
    assert [between.seal(MESSAGE), between.seal_text("x"), between.seal_error("x")] == [MESSAGE, "x", "x"]
    assert between.open(Sealing.parse(OLD).seal(MESSAGE)) == MESSAGE
    assert UNSEALED.open(UNSEALED.seal(MESSAGE)) == MESSAGE


@each(
    "body",
    [
        b"", b"x", BODY, SEALING.seal(MESSAGE).body[:-1], SEALING.seal(MESSAGE).body[:40], SEALING.seal(MESSAGE).body + b"x",
        bytes([*SEALING.seal(MESSAGE).body[:-1], SEALING.seal(MESSAGE).body[-1] ^ 1]), b"\x80" + bytes(100),
        Sealing.parse(OTHER).seal(MESSAGE).body,
    ],
)  # fmt: skip
def test_garbage_and_what_was_changed_can_not_be_opened(body):
    with pytest.raises(SealError, match="or was changed since"):
        SEALING.open(dataclasses.replace(MESSAGE, body=body, content_type=SEALED_TYPE))


def test_without_keys_what_is_sealed_can_not_be_opened():
    with pytest.raises(SealError, match="DISPATCH_ENCRYPTION_KEYS is not set"):
        UNSEALED.open(SEALING.seal(MESSAGE))


@each("text", ["", "a KeyError: 'Ada'", "ä\ud800", "🤖" * MAX_ERROR, "sealed: by hand"])
def test_a_sealed_text_opens_and_a_sealed_error_is_not_cut_off(text):
    plain = text.encode(errors="replace").decode()
    sealed, error = SEALING.seal_text(text), SEALING.seal_error(text)

    assert (SEALING.open_text(sealed), UNSEALED.open_text(plain), sealed != text) == (plain, plain, True)
    assert len(error) <= MAX_ERROR
    assert plain.startswith(SEALING.open_text(error)[:350])
    assert len(SEALING.open_text(error)) >= min(len(plain), 340)


def test_a_record_is_read_as_far_as_there_are_keys():
    seal = Sealing.parse(NEW).seal_text
    fields = {
        "state": "SUCCEEDED", "result": seal('{"a":1}'), "errorType": "E", "error": seal("why"),
        "progress": f'{{"percent":50,"message":"{seal("half")}"}}',
    }  # fmt: skip
    read, unread = (parse("t1", fields, sealing=sealing) for sealing in (SEALING, UNSEALED))
    plain = parse("t1", {"state": "SUCCEEDED", "result": '{"a":1}'}, sealing=SEALING)

    assert (read.result, read.error.message, read.progress) == ({"a": 1}, "why", {"percent": 50, "message": "half"})
    assert (unread.result, unread.error.message) == (UNREADABLE_RESULT, UNREADABLE)
    assert unread.progress == {"percent": 50, "message": UNREADABLE}
    assert plain.result == {"a": 1}


def test_a_fingerprint_is_keyed_and_recognised_through_introduction_rotation_and_removal():
    stages = [
        Sealing.parse(text) for text in ("", f"plain,{OLD}", OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", f"plain,{NEW},{OLD}")
    ]
    prints = [sealing.fingerprints("d1") for sealing in stages]

    assert all(earlier[0] in later for earlier, later in itertools.pairwise(prints))
    assert prints[2][0] in prints[1]  # a gateway that is a step behind
    assert [found[0] == "d1" for found in prints] == [True, True, False, False, False, True]
    assert not set(prints[3][:2]) & set(SEALING.fingerprints("d2"))


def test_the_largest_request_fits_what_workers_take():
    # 1e15, is 5 bytes of a request and 19 of a body: JSON makes no more of any.
    assert len(SEALING.seal(dataclasses.replace(MESSAGE, body=b"x" * (1_048_576 * 19 // 5))).body) < MAX_MESSAGE


@each("text", ["secret", f"{OLD},{OLD}", f"{OLD},plain", "plain", OLD[:-2], f"{OLD[:-2]}=="])
def test_wrong_keys_stop_the_start_and_are_not_printed(text):
    with pytest.raises(ConfigurationError, match="DISPATCH_ENCRYPTION_KEYS: ") as refusal:
        load({"DISPATCH_ENCRYPTION_KEYS": text})

    assert OLD[:20] not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_keys_are_in_no_repr():
    settings = load({"DISPATCH_ENCRYPTION_KEYS": OLD})

    assert OLD[:20] not in f"{settings!r}{settings.sealing!r}"
    assert "oooo" not in repr(settings.sealing)
