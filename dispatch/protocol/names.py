"""Names on the wire: exchanges, queues, routing keys, policies."""

from __future__ import annotations

from dispatch.protocol.retry import LEASE_RUNG

TASK_EXCHANGE = "robot.task.topic"  #: topic: where a task enters, and returns from a rung
RETRY_EXCHANGE = "robot.retry"  #: headers: picks the rung, leaves the routing key alone
DEAD_EXCHANGE = "robot.task.dlx"  #: topic: dead letters

WORK_QUEUE = "robot.task.q"
DEAD_QUEUE = "robot.task.dlq"  #: the DLQ: dead letters for operators
RECORDER_QUEUE = "robot.task.dead.q"  #: a second copy of each dead letter, for the recorder

ROUTING_KEY = "robot.task.dispatch"

WORK_POLICY = "robot.task.q"  #: the work queue's TTL and limits
KEEP_POLICY = "robot.keep"  #: lifts the delivery limit of 20 that RabbitMQ 4.x gives every quorum queue

#: A delivery limit beyond reach. -1 means "no limit" on 4.x and is refused by 3.10.
UNLIMITED = 1_000_000_000

#: Names that start with it are ours.
PREFIX = "robot."


def rung_queue(rung: str) -> str:
    """The delay queue of a rung, e.g. ``robot.retry.q.5m``."""
    return f"robot.retry.q.{rung}"


#: Parks a redelivery whose first copy still runs.
LEASE_QUEUE = rung_queue(LEASE_RUNG)


def routing_key(task_type: str) -> str:
    """The routing key of a task type, e.g. ``robot.task.dispatch.robot.clean``."""
    return f"{ROUTING_KEY}.{task_type}"
