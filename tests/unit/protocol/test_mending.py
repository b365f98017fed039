"""A mended message: the new payload, the links that it had, another key for the other side."""

import json

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.ids import new_task_id
from dispatch.protocol.mending import AS_IT_WAS, Mend, effect_key, mended, same_work
from dispatch.protocol.message import Message
from dispatch.protocol.sealing import SEALED_TYPE, UNSEALED, Sealing
from dispatch.protocol.shards import shard_of
from support.cases import each

SEALING = Sealing.parse("A" * 43 + "=")
TASK_ID = new_task_id()
LINKS = {"callbacks": None, "chain": [{"task": "echo"}]}
MESSAGE = Message(
    json.dumps([[{"message": "x"}], {}, {**LINKS, "errbacks": None, "chord": None}]).encode(),
    {"id": TASK_ID, "task": "echo", "x-cycle": 2, "x-labels": "a=1"},
    routing_key="robot.task.dispatch.echo",
)
KEY = f"{TASK_ID}.2"

payloads = st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))


@given(payloads, st.sampled_from([UNSEALED, SEALING]))
def test_a_mended_message_has_the_new_payload_and_all_else_as_before(payload, sealing):
    found = mended(sealing.seal(MESSAGE), Mend(payload), sealing)
    body = json.loads(sealing.open(found).body)

    assert body == [[payload], {}, {**LINKS, "errbacks": None, "chord": None}]
    assert found.headers == {**MESSAGE.headers, "x-effect-key": KEY}
    assert (found.content_type == SEALED_TYPE) is sealing.active
    assert (found.routing_key, effect_key(found)) == (MESSAGE.routing_key, KEY)


def test_a_fresh_effect_changes_the_key_alone():
    assert mended(MESSAGE, Mend(fresh=True), UNSEALED) == MESSAGE.with_headers(**{"x-effect-key": KEY})
    assert mended(MESSAGE, AS_IT_WAS, UNSEALED) is MESSAGE


@each(("key", "found"), [(None, "robot-1"), ("robot-2", "robot-2"), ("", None)])
def test_a_new_payload_has_its_own_concurrency_key(key, found):
    keyed = MESSAGE.with_headers(**{"x-concurrency-key": "robot-1"})

    assert mended(keyed, Mend({"robot": 2}, key=key), UNSEALED).text("x-concurrency-key") == found


@each(
    ("key", "shards", "found"),
    [
        (None, 4, "3"),
        ("robot-2", 4, str(shard_of("robot-2", 4))),
        ("", 4, str(shard_of(MESSAGE.task_id, 4))),
        ("robot-2", 1, None),
    ],
)
def test_another_concurrency_key_has_its_own_shard(key, shards, found):
    keyed = MESSAGE.with_headers(**{"x-concurrency-key": "robot-1", "shard": "3"})

    assert mended(keyed, Mend({"robot": 2}, key=key), UNSEALED, shards=shards).text("shard") == found


@each("body", [b"junk", b"[]", b"[1,2,3]", b"[[],{},[]]", b"\xff", SEALING.seal(MESSAGE).body, b"[" * 100_000])
def test_a_body_that_nothing_can_read_is_replaced_all_the_same(body):
    poison = Message(
        body,
        {**MESSAGE.headers, "x-compression": "zlib"},
        SEALED_TYPE if body[:1] == b"\x80" else "text/plain",
        "binary",
    )
    found = mended(poison, Mend({"message": "y"}), UNSEALED)

    assert json.loads(found.body)[0] == [{"message": "y"}]
    assert (found.content_type, found.content_encoding, "x-compression" in found.headers) == (
        "application/json", "utf-8", False
    )  # fmt: skip


@each(
    ("given", "key"),
    [(None, TASK_ID), (KEY, KEY), (f"{TASK_ID}.0", TASK_ID), (f"{TASK_ID}.1\r\nX: y", TASK_ID), ("another.2", TASK_ID), (7, TASK_ID)],
)  # fmt: skip
def test_the_other_side_gets_no_key_but_one_of_this_task(given, key):
    headers = {} if given is None else {"x-effect-key": given}

    assert effect_key(MESSAGE.with_headers(**headers)) == key


def test_two_copies_do_the_same_work_however_they_are_sealed():
    one, other = (mended(SEALING.seal(MESSAGE), Mend({"message": "y"}), SEALING) for _ in range(2))
    another = mended(SEALING.seal(MESSAGE), Mend({"message": "z"}), SEALING)

    assert one.body != other.body
    assert same_work(one, other, SEALING)
    assert not same_work(one, another, SEALING)
    assert not same_work(one, one.with_headers("x-effect-key"), SEALING)
    assert not same_work(one, other, UNSEALED)


@each(
    ("mend", "hop"),
    [
        (AS_IT_WAS, {}),
        (Mend(fresh=True), {"fresh": True}),
        (Mend({"password": "x"}), {"payloadEdited": True}),
        (Mend({}, fresh=True), {"payloadEdited": True, "fresh": True}),
    ],
)
def test_a_hop_has_that_the_payload_was_changed_and_not_what_it_is(mend, hop):
    assert (mend.hop(), bool(mend)) == (hop, bool(hop))
