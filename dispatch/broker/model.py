"""What a RabbitMQ vhost can hold, as data. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

Arguments = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange; all of it is frozen when it is declared."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Queue:
    """A queue; all of it is frozen when it is declared, which is why limits are policies."""

    name: str
    arguments: Arguments
    durable: bool = True
    auto_delete: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Binding:
    """What brings messages from an exchange to a queue (or, found alive, to another exchange)."""

    exchange: str
    queue: str  #: or the exchange
    routing_key: str = ""
    arguments: Arguments = dataclasses.field(default_factory=dict)
    to: str = "queue"  #: ``queue`` or ``exchange``

    def __str__(self) -> str:
        words = ", ".join(f"{key}={value}" for key, value in sorted(self.arguments.items()))
        return f"{self.exchange} -> {self.queue} ({' '.join(filter(None, [self.routing_key, words])) or 'no key'})"


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """Limits that an operator may change while queues live. A queue obeys one policy only: the highest priority."""

    name: str
    pattern: str
    definition: Arguments
    priority: int = 0
    apply_to: str = "queues"  #: 3.10 silently ignores ``quorum_queues``

    def governs(self, queue: str) -> bool:
        """Whether the pattern matches a queue's name (RabbitMQ searches, as `re.search` does)."""
        if self.apply_to == "exchanges":
            return False
        try:
            return re.search(self.pattern, queue) is not None
        except re.error:
            return False


@dataclasses.dataclass(frozen=True, slots=True)
class BrokerMap:
    """A vhost's exchanges, queues, bindings and policies: ours as it should be, or as it was found."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    policies: tuple[Policy, ...]
    replaced: tuple[
        Binding, ...
    ] = ()  #: bindings of before that others take the place of: with both, messages come twice
    closed: tuple[str, ...] = ()  #: exchanges whose bindings are these and no others

    def is_replaced(self, binding: Binding) -> bool:
        """Whether a binding that was found must go, once those of the map are there."""
        return binding in self.replaced or (binding.exchange in self.closed and binding not in self.bindings)

    def bindings_of(self, queue: str) -> tuple[Binding, ...]:
        """The bindings that feed a queue, the default exchange's apart."""
        return tuple(binding for binding in self.bindings if binding.queue == queue and binding.to == "queue")

    def policy_of(self, queue: str) -> Policy | None:
        """The policy a queue obeys; None when none matches."""
        matching = [policy for policy in self.policies if policy.governs(queue)]
        return max(matching, key=lambda policy: policy.priority, default=None)
