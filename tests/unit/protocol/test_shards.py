"""Which shard a task goes to: the same for ever, evenly, and hardly another one when there is one more."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol import names
from dispatch.protocol.shards import MAX_SHARDS, shard_of

SHARDS = st.integers(1, MAX_SHARDS)


@given(st.text(), SHARDS)
def test_a_key_has_one_of_the_shards(key, shards):
    assert 0 <= shard_of(key, shards) < shards
    assert shard_of(key, shards) == shard_of(key, shards)


@given(st.text(), st.integers(1, MAX_SHARDS - 1))
def test_with_one_shard_more_a_key_stays_or_moves_to_the_new_one(key, shards):
    assert shard_of(key, shards + 1) in {shard_of(key, shards), shards}


def test_keys_are_spread_evenly():
    counts = Counter(shard_of(f"robot-{number}", 8) for number in range(16_000))

    assert set(counts) == set(range(8))
    assert all(1_800 < count < 2_200 for count in counts.values())


def test_the_shard_of_a_key_is_the_same_in_every_version():
    """A change would send a key's new tasks past its old ones."""
    assert [shard_of(key, 16) for key in ("", "robot-1", "robot-2", "\ud800", "ü")] == [5, 14, 13, 11, 2]


def test_the_first_shard_has_the_queue_that_is_there_without_shards():
    assert [names.shard_queue(shard) for shard in (0, 1, 63)] == [
        "robot.task.q", "robot.task.q.shard.1", "robot.task.q.shard.63"
    ]  # fmt: skip
    assert all(names.is_work_queue(names.shard_queue(shard)) for shard in range(MAX_SHARDS))


def test_a_shard_is_of_the_default_lane():
    parts = {
        queue: names.lane_part(queue)
        for queue in ("robot.task.q", "robot.task.q.shard.1", "robot.task.q.shard", "robot.task.q.bulk")
    }

    assert list(parts.values()) == ["", "", "shard", "bulk"]
