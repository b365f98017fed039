"""The broker map as data, and the verbs over it: declare, plan, apply, verify, show.

Names on the wire are here and nowhere else. What would lose or strand messages if it were missing is a
queue's argument, frozen at declaration; what an operator may want to change is a policy.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import Any

import kombu
from kombu.exceptions import OperationalError

from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.broker.model import Action, Binding, BrokerMap, Difference, Exchange, Policy, Queue, differences
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.protocol.record import RETRY_QUEUE
from dispatch.protocol.retry import LEASE_RUNG, Rung

TASK_EXCHANGE = "robot.task.topic"  #: topic: where a task enters, and returns from a rung
RETRY_EXCHANGE = "robot.retry"  #: headers: picks the rung, leaves the routing key alone
DEAD_EXCHANGE = "robot.task.dlx"  #: topic: whatever can't be done

WORK_QUEUE = "robot.task.q"
DEAD_QUEUE = "robot.task.dlq"  #: the letters, for people
DEAD_TAP = "robot.task.dead.q"  #: the same letters, for workers to record

ROUTING_KEY = "robot.task.dispatch"

WORK_POLICY = "robot.task.q"  #: the work queue's TTL and limits
KEEP_POLICY = "robot.keep"  #: lifts the delivery limit of 20 that RabbitMQ 4.x gives every quorum queue

#: Deliveries of a message that nobody will reach. -1 means "no limit" on 4.x and is refused by 3.10.
UNLIMITED = 1_000_000_000

#: Seconds to reach one broker of several.
CONNECT = 2.0

#: Names that start so are ours.
PREFIX = "robot."

logger = logging.getLogger(__name__)


class TopologyConflict(DispatchError):
    """The broker has a queue or an exchange of that name with other arguments: migrate it, nothing was changed."""


class TopologyRefused(DispatchError):
    """The broker does not let this user declare: run `topology apply` as admin, set DISPATCH_APPLY_TOPOLOGY=false."""


class BrokerUnreachable(DispatchError):
    """None of the broker's URLs let us in: check DISPATCH_BROKER_URL, and the one of the user's role where it is set."""


def rung_queue(rung: str) -> str:
    """The delay queue of a rung, e.g. ``robot.retry.q.5m``."""
    return f"robot.retry.q.{rung}"


#: Parks a redelivery whose first copy still runs.
LEASE_QUEUE = rung_queue(LEASE_RUNG)


def routing_key(task_type: str) -> str:
    """The routing key of a task type, e.g. ``robot.task.dispatch.robot.clean``."""
    return f"{ROUTING_KEY}.{task_type}"


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
def declare(connection: kombu.Connection, settings: Settings) -> None:
    """Create what is missing, at the start of gateway and worker: one AMQP channel, some 20 ms, idempotent.

    Policies go over the management API; when that does not answer, a warning is logged and the
    queues work without limits until ``topology apply`` is run.

    Args:
        connection: to the vhost; its user needs the right to configure.
        settings: the ladder and the limits.

    Raises:
        TopologyConflict: something of that name is there with other arguments.
        TopologyRefused: the user may not declare.
        OSError: the broker can't be reached (as any of the connection's own ``connection_errors``).
    """
    wanted = broker_map(settings)
    try:
        _declare(connection, wanted)
    except connection.channel_errors as exc:
        raise _explained(exc) from exc
    try:
        apply_policies(settings)
    except ManagementUnavailable as exc:
        logger.warning("policies not applied: %s", exc)


def _declare(connection: kombu.Connection, wanted: BrokerMap) -> None:
    with connection.channel() as channel:
        for exchange in wanted.exchanges:
            channel.exchange_declare(exchange.name, exchange.type, durable=True, auto_delete=False)
        for queue in wanted.queues:
            channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, arguments=dict(binding.arguments))


def apply_policies(settings: Settings) -> None:
    """Set the policies that are missing or differ.

    Args:
        settings: the limits, and the management API with a user that is ``policymaker`` or ``administrator``.

    Raises:
        ManagementUnavailable: it did not answer, refused, or there is no such vhost.
    """
    with Management(settings) as management:
        live = management.policies()
        for policy in broker_map(settings).policies:
            if policy not in live:
                management.set_policy(policy)


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found; as a metric, ``drift`` is a gauge that should be 0."""

    vhost: str
    version: str  #: RabbitMQ's
    differences: tuple[Difference, ...]

    @property
    def drift(self) -> int:
        """Things that are missing or differ; extra ones may be an operator's intent and don't count."""
        return sum(difference.drift for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        found = [difference.to_json() for difference in self.differences]
        return {"vhost": self.vhost, "version": self.version, "drift": self.drift, "differences": found}


def plan(settings: Settings) -> list[Difference]:
    """What differs from the live broker, and what `apply` would do about each thing.

    Args:
        settings: the map's, and the management API with a user of the tag ``monitoring`` at least.

    Returns:
        The differences; empty when all is as it should be.

    Raises:
        ManagementUnavailable: it did not answer, refused, or there is no such vhost.
    """
    return list(verify(settings).differences)


def verify(settings: Settings) -> Report:
    """The same look as `plan`, as a report; arguments and errors as there."""
    with Management(settings) as management:
        found = differences(broker_map(settings), management.live(), PREFIX)
        return Report(management.vhost, management.version(), tuple(map(_with_a_way_out, found)))


def apply(settings: Settings) -> list[Difference]:
    """Create what is missing and set the policies; nothing is ever deleted.

    Args:
        settings: the map's, the admin's broker URL, and the management API with a user of the tag ``policymaker``.

    Returns:
        What was mended.

    Raises:
        TopologyConflict: something would need a deletion; nothing was changed.
        TopologyRefused: the admin's user may not declare.
        ManagementUnavailable: the management API did not answer, refused, or there is no such vhost.
        BrokerUnreachable: none of the broker's URLs let us in.
    """
    found = plan(settings)
    refused = [str(difference) for difference in found if difference.action is Action.REFUSE]
    if refused:
        raise TopologyConflict("\n".join(refused))
    with kombu.Connection(settings.broker("admin"), connect_timeout=CONNECT) as connection:
        connect(connection)
        declare(connection, settings)
    apply_policies(settings)
    return [difference for difference in found if difference.action is not Action.KEEP]


def connect(connection: kombu.Connection) -> None:
    """Connect, trying each of the broker's URLs once; kombu by itself gives up after the second.

    Args:
        connection: made with one URL, or with several separated by ``;``.

    Raises:
        BrokerUnreachable: none of them let us in.
    """
    errors = (OperationalError, *connection.connection_errors, *connection.channel_errors)
    others = max(0, len(connection.alt) - 1)
    try:
        connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
    except errors as exc:
        raise BrokerUnreachable(f"{BrokerUnreachable.__doc__} ({exc})") from exc


def _with_a_way_out(difference: Difference) -> Difference:
    if difference.action is not Action.REFUSE or difference.kind == "policy":
        return difference
    return dataclasses.replace(difference, detail=conflict(difference.kind, difference.name, difference.detail))


# --- conflicts -----------------------------------------------------------------------------------
_INEQUIVALENT = re.compile(r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>queue|exchange) '(?P<name>[^']+)'")


def _explained(exc: Exception) -> Exception:
    """What a channel error at a declaration means; the error itself when it is no such thing."""
    text, code = str(exc), getattr(exc, "reply_code", None)
    if code == 406 and (match := _INEQUIVALENT.search(text)):
        return TopologyConflict(conflict(match["kind"], match["name"], text[match.start() :]))
    if code == 403:
        return TopologyRefused(f"The broker refused this user: {text} {TopologyRefused.__doc__}")
    return exc


def conflict(kind: str, name: str, detail: str) -> str:
    """Why something can't be changed in place, and how to migrate.

    Args:
        kind: ``queue`` or ``exchange``.
        name: of the queue or exchange.
        detail: what differs.

    Returns:
        A few sentences for an operator.
    """
    if name == LEASE_QUEUE and "message-ttl" in detail:
        way = f"Keep DISPATCH_LEASE_PARK as it was, or stop the workers, let {name} run empty, delete it, apply again."
    elif name.startswith(rung_queue("")) and "message-ttl" in detail:
        way = (
            "A rung's name is its wait: give the new wait a new name in DISPATCH_LADDER; "
            "the old queue drains by itself and can then be deleted."
        )
    elif kind == "queue":
        way = (
            f"Declare {name}.v2 with the new arguments, bind it, unbind {name}, drain it, verify 0 messages, delete it."
        )
    else:
        way = f"Nothing waits in an exchange: stop the gateway and the workers, delete {name}, then apply again."
    return (
        f"{name} is there with other arguments: {detail}. RabbitMQ freezes them at the {kind}'s declaration, "
        f"so nothing was changed. {way} See docs/how-to/migrate-a-queue.md."
    )
