"""The broker map as data, and the verbs over it: declare, plan, apply, verify, show.

Names on the wire are here and nowhere else. What would lose or strand messages if it were missing is a
queue's argument, frozen at declaration; what an operator may want to change is a policy.
"""

from __future__ import annotations

import re
from typing import Any

from dispatch.broker.model import Binding, BrokerMap, Exchange, Policy, Queue
from dispatch.config.settings import Settings
from dispatch.protocol.message import RETRY_QUEUE
from dispatch.protocol.names import (
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    DEAD_TAP,
    KEEP_POLICY,
    RETRY_EXCHANGE,
    ROUTING_KEY,
    TASK_EXCHANGE,
    UNLIMITED,
    WORK_POLICY,
    WORK_QUEUE,
    rung_queue,
)
from dispatch.protocol.retry import LEASE_RUNG, Rung


# --- the map -------------------------------------------------------------------------------------
def rungs(settings: Settings) -> tuple[Rung, ...]:
    """The ladder's rungs and the lease's parking place, each one delay queue."""
    return (*settings.ladder, Rung(LEASE_RUNG, settings.lease_park))


def broker_map(settings: Settings) -> BrokerMap:
    """Everything that must be in the vhost (DESIGN: "The broker map").

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
        ),
        queues=(
            Queue(WORK_QUEUE, _quorum(dead_letter_to=DEAD_EXCHANGE)),
            *(Queue(rung_queue(rung.name), _delay(rung)) for rung in rungs(settings)),
            Queue(DEAD_TAP, _quorum()),
            Queue(DEAD_QUEUE, _quorum()),
        ),
        bindings=(
            Binding(TASK_EXCHANGE, WORK_QUEUE, f"{ROUTING_KEY}.#"),
            *(
                Binding(RETRY_EXCHANGE, rung_queue(rung.name), "", {RETRY_QUEUE: rung.name, "x-match": "all"})
                for rung in rungs(settings)
            ),
            Binding(DEAD_EXCHANGE, DEAD_TAP, "#"),
            Binding(DEAD_EXCHANGE, DEAD_QUEUE, "#"),
        ),
        policies=_policies(settings),
    )


def queues(settings: Settings) -> tuple[Queue, ...]:
    """The queues of the map, work queue first, DLQ last."""
    return broker_map(settings).queues


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


def _delay(rung: Rung) -> dict[str, Any]:
    return {**_quorum(dead_letter_to=TASK_EXCHANGE), "x-message-ttl": round(rung.seconds * 1_000)}


def _policies(settings: Settings) -> tuple[Policy, ...]:
    work = {
        "message-ttl": round(settings.queue_ttl * 1_000),
        "max-length": settings.queue_hard_limit,
        "delivery-limit": settings.delivery_limit,
    }
    kept = "|".join([re.escape(rung_queue("")) + "[a-z0-9-]+", re.escape(DEAD_TAP), re.escape(DEAD_QUEUE)])
    return (
        Policy(WORK_POLICY, f"^{re.escape(WORK_QUEUE)}$", work),
        Policy(KEEP_POLICY, f"^({kept})$", {"delivery-limit": UNLIMITED}),
    )


# --- the verbs -----------------------------------------------------------------------------------


# --- conflicts -----------------------------------------------------------------------------------
