"""The verbs over the broker map: declare what is missing, plan, apply, verify. Nothing that holds a message is ever deleted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

import kombu
from kombu.exceptions import OperationalError

from dispatch.broker import connections, faults
from dispatch.broker.drift import Action, Difference, differences
from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.broker.model import Binding, BrokerMap
from dispatch.config.groups import BrokerSettings
from dispatch.config.tls import Where
from dispatch.errors import DispatchError, Trouble
from dispatch.protocol.names import (
    HOLD_QUEUE,
    LEASE_QUEUE,
    PREFIX,
    delay_queue,
    rung_queue,
)
from dispatch.telemetry import logger

#: Seconds to reach one broker of several, and for each of its answers.
CONNECT = 2.0


log = logger(__name__)


class TopologyConflict(DispatchError):
    """The broker has a queue or an exchange of that name with other arguments: migrate it, nothing was changed."""


class TopologyRefused(DispatchError):
    """The broker does not let this user declare: run `topology apply` as admin, set DISPATCH_APPLY_TOPOLOGY=false."""


class BrokerUnreachable(DispatchError):
    """No URL of the broker accepted the connection: check DISPATCH_BROKER_URL, and the one of the user's role where it is set.

    Args:
        message: for an operator.
        trouble: why, where it is known.
    """

    def __init__(self, message: str | None = None, trouble: Trouble | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble


def declare(connection: kombu.Connection, wanted: BrokerMap, settings: BrokerSettings) -> None:
    """Create what is missing, at the start of gateway and worker: one AMQP channel, some 20 ms, idempotent.

    Policies go over the management API; when that does not answer, a warning is logged and the
    queues work without limits until ``topology apply`` is run.

    Args:
        connection: to the vhost; its user needs the right to configure.
        wanted: the map.
        settings: where the management API is.

    Raises:
        TopologyConflict: something of that name is there with other arguments.
        TopologyRefused: the user may not declare.
        OSError: the broker can't be reached (as any of the connection's own ``connection_errors``).
    """
    try:
        _declare(connection, wanted)
    except connection.channel_errors as exc:
        raise _explained(exc) from exc
    try:
        apply_policies(wanted, settings)
    except ManagementUnavailable as exc:
        log.warning("policies not applied", reason=str(exc))


def declare_at(where: Where, wanted: BrokerMap, settings: BrokerSettings) -> None:
    """`declare` over a connection of its own, before the first publish of a gateway's connection.

    What is there with other arguments, or may not be created by this user, is an operator's business: tasks that
    can be routed all the same are still accepted, the others are refused as unroutable.

    Args:
        where: the broker.
        wanted: the map.
        settings: where the management API is.

    Raises:
        BrokerUnreachable: it did not accept the connection.
    """
    limits = {"read_timeout": CONNECT, "write_timeout": CONNECT}
    with connections.connection(where, connect_timeout=CONNECT, transport_options=limits) as connection:
        connect(connection, where)
        try:
            declare(connection, wanted, settings)
        except (TopologyConflict, TopologyRefused) as exc:
            log.error("the broker map can't be applied", reason=str(exc))  # noqa: TRY400 - the reason is the text


def _declare(connection: kombu.Connection, wanted: BrokerMap) -> None:
    with connection.channel() as channel:
        for exchange in wanted.exchanges:
            arguments = dict(exchange.arguments)
            channel.exchange_declare(exchange.name, exchange.type, durable=True, auto_delete=False, arguments=arguments)
        for queue in wanted.queues:
            channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            bind = channel.exchange_bind if binding.to == "exchange" else channel.queue_bind
            bind(binding.queue, binding.exchange, binding.routing_key, arguments=dict(binding.arguments))
        _unbind(channel, wanted.replaced)


def _unbind(channel: Any, bindings: Iterable[Binding]) -> None:
    """Remove bindings, if they are there. Others do their work already: no message is without a queue in between."""
    for binding in bindings:
        unbind = channel.exchange_unbind if binding.to == "exchange" else channel.queue_unbind
        unbind(binding.queue, binding.exchange, binding.routing_key, arguments=dict(binding.arguments))


def apply_policies(wanted: BrokerMap, settings: BrokerSettings) -> None:
    """Set the policies that are missing or differ.

    Args:
        wanted: the map.
        settings: the management API with a user that is ``policymaker`` or ``administrator``.

    Raises:
        ManagementUnavailable: it did not answer, refused, or there is no such vhost.
    """
    with Management(settings) as management:
        live = management.policies()
        for policy in wanted.policies:
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


def plan(wanted: BrokerMap, settings: BrokerSettings) -> list[Difference]:
    """What differs from the live broker, and what `apply` would do about each thing.

    Args:
        wanted: the map.
        settings: the management API with a user of the tag ``monitoring`` at least.

    Returns:
        The differences; empty when all is as it should be.

    Raises:
        ManagementUnavailable: it did not answer, refused, or there is no such vhost.
    """
    return list(verify(wanted, settings).differences)


def verify(wanted: BrokerMap, settings: BrokerSettings) -> Report:
    """What `plan` returns, as a report; arguments and errors as there."""
    with Management(settings) as management:
        found = differences(wanted, management.live(), PREFIX)
        return Report(management.vhost, management.version(), tuple(map(_with_a_way_out, found)))


def apply(wanted: BrokerMap, settings: BrokerSettings) -> list[Difference]:
    """Create what is missing and set the policies; nothing is ever deleted but bindings that others take the place of.

    Args:
        wanted: the map.
        settings: the admin's broker URL, and the management API with a user of the tag ``policymaker``.

    Returns:
        What was mended.

    Raises:
        TopologyConflict: something would need a deletion; nothing was changed.
        TopologyRefused: the admin's user may not declare.
        ManagementUnavailable: the management API did not answer, refused, or there is no such vhost.
        BrokerUnreachable: no URL of the broker accepted the connection.
    """
    found = plan(wanted, settings)
    refused = [str(difference) for difference in found if difference.action is Action.REFUSE]
    if refused:
        raise TopologyConflict("\n".join(refused))
    admin = settings.address("admin")
    with connections.connection(admin, connect_timeout=CONNECT) as connection:
        connect(connection, admin)
        declare(connection, wanted, settings)
        with Management(settings) as management, connection.channel() as channel:
            _unbind(channel, [binding for binding in management.live().bindings if wanted.is_replaced(binding)])
    apply_policies(wanted, settings)
    return [difference for difference in found if difference.action is not Action.KEEP]


def connect(connection: kombu.Connection, where: Where) -> None:
    """Connect, trying each of the broker's URLs once; kombu by itself gives up after the second.

    Args:
        connection: made with one URL, or with several separated by ``;``.
        where: what it was made with.

    Raises:
        BrokerUnreachable: none of them accepted the connection.
    """
    errors = (OperationalError, *connection.connection_errors, *connection.channel_errors)
    others = max(0, len(connection.alt) - 1)
    try:
        connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
    except errors as exc:
        trouble = faults.trouble(where, exc)
        raise BrokerUnreachable(f"{trouble}. Check DISPATCH_BROKER_URL, and that of the role.", trouble) from exc


def _with_a_way_out(difference: Difference) -> Difference:
    if difference.action is not Action.REFUSE or difference.kind == "policy":
        return difference
    return dataclasses.replace(difference, detail=conflict(difference.kind, difference.name, difference.detail))


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
    elif name == HOLD_QUEUE and "message-ttl" in detail:
        way = f"Keep DISPATCH_HOLD_TTL as it was, or stop the workers, let {name} run empty, delete it, apply again."
    elif name.startswith(rung_queue("")) and "message-ttl" in detail:
        way = (
            "A rung's name is its wait: give the new wait a new name in DISPATCH_LADDER; "
            "the old queue drains by itself and can then be deleted."
        )
    elif name.startswith(delay_queue("")):
        way = f"A delay level's wait is part of its name: let {name} run empty, delete it, apply again."
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
