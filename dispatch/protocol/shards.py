"""Shards: several queues for one lane, where one queue is not enough for its rate. Pure.

RabbitMQ keeps a queue on one node at a time, and its leader works on one core. The tasks of the default lane are spread over
several queues by a hash: of the concurrency key where a task has one, so that the tasks of a key keep their order; otherwise
of its id.
"""

from __future__ import annotations

import hashlib

#: Shards that a lane may have: a quorum queue costs each of its nodes memory and files.
MAX_SHARDS = 64

_STEP = 2862933555777941757
_MASK = 2**64 - 1


def shard_of(key: str, shards: int) -> int:
    """The shard of a key, by jump consistent hash (Lamping, Veach: "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014).

    With one shard more, each key stays or moves to the new one: of n + 1 shards, 1/(n + 1) of the keys.

    Args:
        key: any text.
        shards: how many there are, 1 at least.

    Returns:
        A number from 0 to ``shards - 1``; the same in every process and version.
    """
    state = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    shard, jump = 0, 0
    while jump < shards:
        shard = jump
        state = (state * _STEP + 1) & _MASK
        jump = int((shard + 1) * (2**31 / ((state >> 33) + 1)))
    return shard
