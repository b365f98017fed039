"""The broker map as data: exchanges, queues, bindings, policies. The verbs over it are in `dispatch.broker.provision`.

What would lose or strand messages if it were missing is a
queue's argument, frozen at declaration; what an operator may want to change is a policy.
"""

from __future__ import annotations

import re
from typing import Any

from dispatch.broker.model import Binding, BrokerMap, Exchange, Policy, Queue
from dispatch.config.groups import QueueSettings
from dispatch.config.groups.queues import hard_limit
from dispatch.protocol.lanes import Lanes
from dispatch.protocol.message import DELAY_BITS, RETRY_QUEUE, SHARD
from dispatch.protocol.names import (
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    DEFAULT_LANE_EXCHANGE,
    DELAY_POLICY,
    FIRST_SHARD_EXCHANGE,
    HOLD_QUEUE,
    KEEP_POLICY,
    LANES_EXCHANGE,
    RECORDER_QUEUE,
    RETRY_EXCHANGE,
    ROUTING_KEY,
    SHARDS_EXCHANGE,
    TASK_EXCHANGE,
    UNLIMITED,
    WORK_QUEUE,
    delay_exchange,
    delay_queue,
    rung_queue,
    shard_queue,
)
from dispatch.protocol.retry import HOLD_RUNG, LEASE_RUNG, Rung

#: Of the one work queue, where there are neither lanes nor shards.
ONE_QUEUE = Binding(TASK_EXCHANGE, WORK_QUEUE, f"{ROUTING_KEY}.#")

#: Of the default lane's one queue, where there are lanes and no shards.
DEFAULT_LANE = Binding(DEFAULT_LANE_EXCHANGE, WORK_QUEUE, f"{ROUTING_KEY}.#")


def rungs(settings: QueueSettings) -> tuple[Rung, ...]:
    """The ladder's rungs and the lease's parking place, each one delay queue."""
    return (*settings.ladder.rungs, Rung(LEASE_RUNG, settings.lease_park))


def broker_map(settings: QueueSettings) -> BrokerMap:
    """Everything that must be in the vhost (docs/reference/topology.md).

    Args:
        settings: the ladder, the lease's parking time, and the limits that go into policies.

    Returns:
        Exchanges, queues, bindings and policies; the same for every RabbitMQ from 3.10 to 4.x.
    """
    return BrokerMap(
        exchanges=(
            Exchange(TASK_EXCHANGE, "topic"),
            Exchange(RETRY_EXCHANGE, "headers"),
            Exchange(DEAD_EXCHANGE, "topic"),
            *(Exchange(delay_exchange(level), "headers") for level in range(settings.delay_levels)),
            *_lane_exchanges(settings.lanes),
            *_shard_exchanges(settings.shards),
        ),
        queues=(
            *(Queue(name, _quorum(dead_letter_to=DEAD_EXCHANGE)) for name in settings.work_queues),
            *(Queue(rung_queue(rung.name), _delay(TASK_EXCHANGE, rung.seconds)) for rung in rungs(settings)),
            Queue(HOLD_QUEUE, _delay(TASK_EXCHANGE, settings.hold_ttl)),
            *(Queue(delay_queue(level), _delay(_below(level), 2**level)) for level in range(settings.delay_levels)),
            Queue(RECORDER_QUEUE, _quorum()),
            Queue(DEAD_QUEUE, _quorum()),
        ),
        bindings=(
            *_work_bindings(settings.lanes, settings.shards),
            *(
                Binding(RETRY_EXCHANGE, rung_queue(rung.name), "", {RETRY_QUEUE: rung.name, "x-match": "all"})
                for rung in rungs(settings)
            ),
            Binding(RETRY_EXCHANGE, HOLD_QUEUE, "", {RETRY_QUEUE: HOLD_RUNG, "x-match": "all"}),
            *(binding for level in range(settings.delay_levels) for binding in _level(level)),
            Binding(DEAD_EXCHANGE, RECORDER_QUEUE, "#"),
            Binding(DEAD_EXCHANGE, DEAD_QUEUE, "#"),
        ),
        policies=_policies(settings),
        replaced=_replaced(settings),
        closed=(
            *((LANES_EXCHANGE, DEFAULT_LANE_EXCHANGE) if settings.lanes else ()),
            *((SHARDS_EXCHANGE, FIRST_SHARD_EXCHANGE) if settings.shards > 1 else ()),
        ),
    )


def _lane_exchanges(lanes: Lanes) -> tuple[Exchange, ...]:
    """A message that no lane's binding takes goes to the alternate exchange: topic patterns can't leave anything out."""
    if not lanes:
        return ()
    alternate = {"alternate-exchange": DEFAULT_LANE_EXCHANGE}
    return (Exchange(DEFAULT_LANE_EXCHANGE, "topic"), Exchange(LANES_EXCHANGE, "topic", arguments=alternate))


def _shard_exchanges(shards: int) -> tuple[Exchange, ...]:
    """A message of no shard, or of one that is there no more, goes to the first one's queue."""
    if shards == 1:
        return ()
    alternate = {"alternate-exchange": FIRST_SHARD_EXCHANGE}
    return (Exchange(FIRST_SHARD_EXCHANGE, "fanout"), Exchange(SHARDS_EXCHANGE, "headers", arguments=alternate))


def _work_bindings(lanes: Lanes, shards: int) -> tuple[Binding, ...]:
    """The last one last: until then every message has its way of before."""
    own = _shard_bindings(shards)
    if not lanes:
        return (*own, _to_shards(TASK_EXCHANGE)) if own else (ONE_QUEUE,)
    return (
        *((*own, _to_shards(DEFAULT_LANE_EXCHANGE)) if own else (DEFAULT_LANE,)),
        *(Binding(LANES_EXCHANGE, lane.queue, key) for lane in lanes for key in lane.keys),
        Binding(TASK_EXCHANGE, LANES_EXCHANGE, f"{ROUTING_KEY}.#", to="exchange"),
    )


def _shard_bindings(shards: int) -> tuple[Binding, ...]:
    if shards == 1:
        return ()
    return (
        Binding(FIRST_SHARD_EXCHANGE, WORK_QUEUE),
        *(
            Binding(SHARDS_EXCHANGE, shard_queue(shard), "", {SHARD: str(shard), "x-match": "all"})
            for shard in range(1, shards)
        ),
    )


def _to_shards(exchange: str) -> Binding:
    return Binding(exchange, SHARDS_EXCHANGE, f"{ROUTING_KEY}.#", to="exchange")


def _replaced(settings: QueueSettings) -> tuple[Binding, ...]:
    """Bindings of a map without the lanes, or without the shards, that this one has."""
    lanes, shards = bool(settings.lanes), settings.shards > 1
    return (
        *((ONE_QUEUE,) if lanes or shards else ()),
        *((_to_shards(TASK_EXCHANGE),) if lanes and shards else ()),
        *((DEFAULT_LANE,) if lanes and shards else ()),
    )


def _quorum(dead_letter_to: str | None = None) -> dict[str, Any]:
    """A queue's arguments. At-least-once dead-lettering needs reject-publish, or RabbitMQ falls back silently."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if dead_letter_to:
        arguments |= {
            "x-dead-letter-exchange": dead_letter_to,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
    return arguments


def _delay(dead_letter_to: str, seconds: float) -> dict[str, Any]:
    return {**_quorum(dead_letter_to=dead_letter_to), "x-message-ttl": round(seconds * 1_000)}


def _below(level: int) -> str:
    """Where a message goes after a delay level, or past it."""
    return delay_exchange(level - 1) if level else TASK_EXCHANGE


def _level(level: int) -> tuple[Binding, Binding]:
    """A delay level's bindings: a message with neither bit is returned, so none waits shorter than was asked."""
    exchange, bit = delay_exchange(level), DELAY_BITS[level]
    return (
        Binding(exchange, delay_queue(level), "", {bit: "1", "x-match": "all"}),
        Binding(exchange, _below(level), "", {bit: "0", "x-match": "all"}, to="exchange"),
    )


def _policies(settings: QueueSettings) -> tuple[Policy, ...]:
    kept = "|".join(
        [re.escape(rung_queue("")) + "[a-z0-9-]+", *map(re.escape, (HOLD_QUEUE, RECORDER_QUEUE, DEAD_QUEUE))]
    )
    return (
        # The default lane's last: where it was the policy of all lanes, none is without one meanwhile.
        *(_work_policy(settings, queue, limit) for queue, limit in reversed(settings.depth_limits.items())),
        Policy(KEEP_POLICY, f"^({kept})$", {"delivery-limit": UNLIMITED}),
        *((_delay_policy(settings),) if settings.delay_levels else ()),
    )


def _work_policy(settings: QueueSettings, queue: str, depth_limit: int) -> Policy:
    """Of one lane, by its queue's name: lanes may have limits of their own."""
    limits = {
        "message-ttl": round(settings.queue_ttl * 1_000),
        "max-length": hard_limit(depth_limit),
        "delivery-limit": settings.delivery_limit,
    }
    return Policy(queue, f"^{re.escape(queue)}$", limits)


def _delay_policy(settings: QueueSettings) -> Policy:
    limits = {"delivery-limit": UNLIMITED, "max-length": settings.delay_limit}
    return Policy(DELAY_POLICY, f"^{re.escape(delay_queue(''))}[0-9]+$", limits)
