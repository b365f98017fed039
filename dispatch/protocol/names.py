"""Names on the wire: exchanges, queues, routing keys, policies."""

from __future__ import annotations

import re

from dispatch.protocol.retry import LEASE_RUNG

TASK_EXCHANGE = "robot.task.topic"  #: topic: where a task enters, and returns from a rung
RETRY_EXCHANGE = "robot.retry"  #: headers: picks the rung, leaves the routing key alone
DEAD_EXCHANGE = "robot.task.dlx"  #: topic: dead letters

LANES_EXCHANGE = "robot.task.lanes"  #: topic: picks the lane by the task type, where there are lanes
DEFAULT_LANE_EXCHANGE = "robot.task.lane.default"  #: topic: the alternate of the one above: what no lane has

SHARDS_EXCHANGE = "robot.task.shards"  #: headers: picks the shard of the default lane, where it has several
FIRST_SHARD_EXCHANGE = (
    "robot.task.shard.0"  #: fanout: the alternate of the one above: the first shard's, and what has none
)

WORK_QUEUE = "robot.task.q"
HOLD_QUEUE = "robot.hold.q"  #: copies that may not run yet: their type is paused, or their concurrency key taken
DEAD_QUEUE = "robot.task.dlq"  #: the DLQ: dead letters for operators
RECORDER_QUEUE = "robot.task.dead.q"  #: a second copy of each dead letter, for the recorder

DELAY_LEVELS = "robot.delay.q.*"  #: all delay levels together, for people

ROUTING_KEY = "robot.task.dispatch"

WORK_POLICY = "robot.task.q"  #: the work queue's TTL and limits
DELAY_POLICY = "robot.delay"  #: the delay levels' limit
KEEP_POLICY = "robot.keep"  #: lifts the delivery limit of 20 that RabbitMQ 4.x gives every quorum queue

#: A delivery limit beyond reach. -1 means "no limit" on 4.x and is refused by 3.10.
UNLIMITED = 1_000_000_000

#: What the queues of all shards but the first begin with; the name of a lane has no dot.
_SHARD = f"{WORK_QUEUE}.shard."

#: Routing keys that reach the work queue, and that the topic permissions of `dispatch.broker.definitions` admit.
_ROUTED = re.compile(rf"{re.escape(ROUTING_KEY)}(\.[A-Za-z0-9_-]+)*")

#: Characters of a routing key, by the protocol.
_MAX_KEY = 255

#: Names that start with it are ours.
PREFIX = "robot."


def rung_queue(rung: str) -> str:
    """The delay queue of a rung, e.g. ``robot.retry.q.5m``."""
    return f"robot.retry.q.{rung}"


def lane_queue(lane: str) -> str:
    """The work queue of a lane, e.g. ``robot.task.q.bulk``; the default lane has `WORK_QUEUE`."""
    return f"{WORK_QUEUE}.{lane}"


def shard_queue(shard: int) -> str:
    """The work queue of a shard of the default lane, e.g. ``robot.task.q.shard.3``; shard 0 has `WORK_QUEUE`."""
    return f"{_SHARD}{shard}" if shard else WORK_QUEUE


def is_work_queue(queue: str) -> bool:
    """Whether a queue is that of a lane or a shard, or the default one."""
    return queue == WORK_QUEUE or queue.startswith(f"{WORK_QUEUE}.")


def lane_part(queue: str) -> str:
    """The lane's part of the name of a work queue; empty for the default lane, whatever the shard."""
    return "" if queue.startswith(_SHARD) else queue.removeprefix(WORK_QUEUE).removeprefix(".")


def delay_exchange(level: int) -> str:
    """The headers exchange of a delay level, e.g. ``robot.delay.5``: to the level's queue, or to the next level below."""
    return f"robot.delay.{level}"


def is_delay_exchange(exchange: str) -> bool:
    """Whether an exchange is that of a delay level."""
    return exchange.startswith(f"{DELAY_POLICY}.")


def delay_queue(level: int | str) -> str:
    """The queue of a delay level, e.g. ``robot.delay.q.5``, which waits 2^5 seconds."""
    return f"robot.delay.q.{level}"


#: Parks a redelivery whose first copy still runs.
LEASE_QUEUE = rung_queue(LEASE_RUNG)


def routing_key(task_type: str) -> str:
    """The routing key of a task type, e.g. ``robot.task.dispatch.robot.clean``."""
    return f"{ROUTING_KEY}.{task_type}"


def routed_key(own: str, task_type: str) -> str:
    """The routing key of a copy that goes to the work queue, at once or by a rung.

    A dead letter may have any key: of a message on the control queue, of a client that may publish to the dead-letter
    exchange. The task exchange would return its copy, and after a rung's TTL it could not leave the rung.

    Args:
        own: the message's.
        task_type: its type's name, perhaps a foreign message's.

    Returns:
        Its own key when that reaches the work queue, otherwise its type's.
    """
    return next((key for key in (own, routing_key(task_type)) if _reaches_work(key)), ROUTING_KEY)


def _reaches_work(key: str) -> bool:
    return len(key) <= _MAX_KEY and _ROUTED.fullmatch(key) is not None
