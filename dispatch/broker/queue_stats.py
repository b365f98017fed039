"""The operator's view of the queues: depth, consumers, rates, bindings, limits, and drift from the map.

Some seconds old: RabbitMQ collects its statistics every five. `dispatch.broker.depth` is exact. After a start RabbitMQ has
no statistics of a queue for up to ten seconds; what waits in it and who consumes it is asked of the queue itself then.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dispatch.broker.depth import depths
from dispatch.broker.drift import Difference, differences
from dispatch.broker.management import Management
from dispatch.broker.model import BrokerMap
from dispatch.config.groups import BrokerSettings
from dispatch.protocol import names
from dispatch.protocol.ids import timestamp
from dispatch.protocol.lanes import DEFAULT

#: Seconds that a snapshot may take: a request has five (P7). Of these for depths that have no statistics yet.
SNAPSHOT, DEPTHS = 3.0, 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as an operator sees it. A number is None of a queue that is not there, a rate while none was measured yet."""

    name: str
    role: str  #: ``work``, ``rung``, ``lease``, ``hold``, ``delay``, ``dead-tap``, ``dead-letters`` or ``extra``
    ready: int | None
    unacked: int | None
    total: int | None
    dead_lettering: int | None  #: dead-lettered, and not yet confirmed by the queue they go to
    consumers: int | None
    publish_rate: float | None  #: messages a second, as the other rates
    deliver_rate: float | None
    ack_rate: float | None
    ttl: float | None  #: seconds a message may wait: the argument's or the policy's, the shorter one
    dead_letter_exchange: str | None
    max_length: int | None
    delivery_limit: int | None  #: None when there is none worth the name
    guard: Mapping[str, Any] | None  #: of a work queue: the ``limit`` above which gateways refuse, whether they do
    policy: str | None
    bindings: tuple[Mapping[str, Any], ...]
    drift: tuple[str, ...]  #: what differs from the map, as sentences
    as_of: int  #: epoch milliseconds of the read; the statistics may be some five seconds older
    lane: str | None = None  #: of a work queue, where there are lanes

    def to_json(self) -> dict[str, Any]:
        """As the API shows it (``GET /v1/queues``)."""
        words = {field.name: field.name.split("_") for field in dataclasses.fields(self)}
        names = {name: first + "".join(map(str.capitalize, rest)) for name, (first, *rest) in words.items()}
        values = {names[name]: getattr(self, name) for name in words}
        return {**values, "bindings": list(self.bindings), "drift": list(self.drift), "asOf": timestamp(self.as_of)}


def snapshot(wanted: BrokerMap, settings: BrokerSettings, *, depth_limits: Mapping[str, int]) -> list[QueueView]:
    """All our queues, those left behind by an older map included.

    Args:
        wanted: the broker map.
        settings: the management API with a user of the tag ``monitoring`` at least.
        depth_limits: ready messages above which gateways refuse, by work queue.

    Returns:
        One view a queue, in the map's order; a queue that is not there has no numbers, and its drift names it.

    Raises:
        ManagementUnavailable: no answer within 1 s a call or 3 s for all of them, or a refusal, or no such vhost.
    """
    with Management(settings, budget=SNAPSHOT) as management:
        stats = {queue["name"]: queue for queue in management.queue_stats()}
        _complete(stats, management, settings)
        live = management.live(list(stats.values()))
    drift = differences(wanted, live, names.PREFIX)
    ours = [queue.name for queue in wanted.queues]
    left = [name for name in sorted(stats) if name.startswith(names.PREFIX) and name not in ours]
    now = round(time.time() * 1_000)
    views = [_view(name, stats.get(name, {}), live, drift, now, extra=name in left) for name in [*ours, *left]]
    return _guarded(views, depth_limits)


def _complete(stats: dict[str, dict[str, Any]], management: Management, settings: BrokerSettings) -> None:
    """Counts of our queues that RabbitMQ has no statistics of yet.

    A quorum queue's total is 0 until its first tick after a start, whatever waits in it: only a passive declaration is
    exact. What is unacknowledged has no other source; five seconds before, nothing could be.
    """
    fresh = [name for name, queue in stats.items() if name.startswith(names.PREFIX) and "messages" not in queue]
    if not fresh:
        return
    totals = management.queue_totals()
    for name, depth in depths(settings, fresh, DEPTHS).items():
        unacked = totals.get(name, {}).get("messages_unacknowledged", 0)
        counts = {"messages_ready": depth.ready, "messages_unacknowledged": unacked, "messages": depth.ready + unacked}
        stats[name].update(counts, consumers=depth.consumers, message_stats=None)


def _guarded(views: Sequence[QueueView], limits: Mapping[str, int]) -> list[QueueView]:
    """Work queues with their guard, which counts what is ready in all queues of a lane; and with the lane, where there are lanes."""
    ready: dict[str, int] = {}
    for view in views:
        if view.role == "work":
            lane = names.lane_part(view.name)
            ready[lane] = ready.get(lane, 0) + (view.ready or 0)

    def guarded(view: QueueView) -> QueueView:
        lane, limit = names.lane_part(view.name), limits[view.name]
        shown = (lane or DEFAULT) if len(ready) > 1 else None
        return dataclasses.replace(view, lane=shown, guard={"limit": limit, "refusing": ready[lane] > limit})

    return [guarded(view) if view.role == "work" else view for view in views]


def _view(
    name: str, stats: Mapping[str, Any], live: BrokerMap, drift: Sequence[Difference], now: int, *, extra: bool
) -> QueueView:
    arguments: Mapping[str, Any] = stats.get("arguments", {})
    policy = live.policy_of(name) if stats else None
    limits: Mapping[str, Any] = policy.definition if policy else {}
    waits = [millis for millis in (arguments.get("x-message-ttl"), limits.get("message-ttl")) if millis is not None]
    return QueueView(
        name=name,
        role="extra" if extra else _role(name),
        ready=stats.get("messages_ready"),
        unacked=stats.get("messages_unacknowledged"),
        total=stats.get("messages"),
        dead_lettering=stats.get("messages_dlx"),
        consumers=stats.get("consumers"),
        publish_rate=_rate(stats, "publish"),
        deliver_rate=_rate(stats, "deliver_get"),
        ack_rate=_rate(stats, "ack"),
        ttl=min(waits) / 1_000 if waits else None,
        dead_letter_exchange=arguments.get("x-dead-letter-exchange"),
        max_length=limits.get("max-length"),
        guard=None,
        delivery_limit=None if (limit := limits.get("delivery-limit")) == names.UNLIMITED else limit,
        policy=policy.name if policy else None,
        bindings=tuple(
            {"exchange": binding.exchange, "routingKey": binding.routing_key, "headers": dict(binding.arguments)}
            for binding in live.bindings_of(name)
        ),
        drift=tuple(str(difference) for difference in drift if name in difference.queues),
        as_of=now,
    )


def _role(name: str) -> str:
    roles = {
        names.LEASE_QUEUE: "lease",
        names.HOLD_QUEUE: "hold",
        names.RECORDER_QUEUE: "dead-tap",
        names.DEAD_QUEUE: "dead-letters",
    }
    if names.is_work_queue(name):
        return "work"
    return roles.get(name, "delay" if name.startswith(names.delay_queue("")) else "rung")


def _rate(stats: Mapping[str, Any], what: str) -> float | None:
    """Messages a second; 0 when RabbitMQ knows the queue but never saw that happen to it."""
    seen = stats.get("message_stats", {} if "messages" in stats else None)
    if seen is None:
        return None
    rate: float = seen.get(f"{what}_details", {}).get("rate", 0.0)
    return rate
