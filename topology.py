"""The broker map as data, and three verbs over it: plan, apply, verify.

Names on the wire are here and nowhere else.
"""

from __future__ import annotations

from dispatch.retry import LEASE_RUNG

TASK_EXCHANGE = "robot.task.topic"  #: topic: where a task enters, and returns from a rung
RETRY_EXCHANGE = "robot.retry"  #: headers: picks the rung, leaves the routing key alone
DEAD_EXCHANGE = "robot.task.dlx"  #: topic: whatever can't be done

WORK_QUEUE = "robot.task.q"
DEAD_QUEUE = "robot.task.dlq"  #: the letters, for people
DEAD_TAP = "robot.task.dead.q"  #: the same letters, for workers to record

ROUTING_KEY = "robot.task.dispatch"


def rung_queue(rung: str) -> str:
    """The delay queue of a rung, e.g. ``robot.retry.q.5m``."""
    return f"robot.retry.q.{rung}"


#: Parks a redelivery whose first copy still runs.
LEASE_QUEUE = rung_queue(LEASE_RUNG)


def routing_key(task_type: str) -> str:
    """The routing key of a task type, e.g. ``robot.task.dispatch.robot.clean``."""
    return f"{ROUTING_KEY}.{task_type}"
