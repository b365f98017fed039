"""What differs between the broker map and the live broker. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator

from dispatch.broker.model import Arguments, BrokerMap, Exchange, Policy, Queue


class Verdict(enum.StrEnum):
    """How something differs from the map."""

    MISSING = "missing"
    DIFFERS = "differs"
    EXTRA = "extra"  #: not in the map; an operator may have meant it, so it is no drift by itself


class Action(enum.StrEnum):
    """What ``apply`` does about a difference."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"  #: of bindings alone, once others do their work
    REFUSE = "refuse"  #: it would need a deletion
    KEEP = "keep"  #: nothing is ever deleted


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One difference from the map."""

    kind: str  #: ``exchange``, ``queue``, ``binding`` or ``policy``
    name: str
    verdict: Verdict
    action: Action
    detail: str
    queues: tuple[str, ...] = ()  #: the queues it concerns

    @property
    def drift(self) -> bool:
        """Whether ``verify`` fails because of it."""
        return self.verdict is not Verdict.EXTRA

    def to_json(self) -> dict[str, str]:
        """For ``--json`` and the API."""
        names = ("kind", "name", "verdict", "action", "detail")
        return {name: str(getattr(self, name)) for name in names}

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.detail}"


def differences(wanted: BrokerMap, live: BrokerMap, prefix: str) -> list[Difference]:
    """Compare a map with what is alive.

    Args:
        wanted: the map.
        live: the whole vhost as found.
        prefix: names that start so are ours, so that a queue left behind is noticed.

    Returns:
        The differences, in the order in which they must be mended: exchanges, queues, bindings, policies.
    """
    return [
        *_entities("exchange", wanted.exchanges, live.exchanges, prefix),
        *_entities("queue", wanted.queues, live.queues, prefix),
        *_bindings(wanted, live),
        *_policies(wanted, live),
    ]


def _entities(
    kind: str, wanted: Iterable[Exchange | Queue], live: Iterable[Exchange | Queue], prefix: str
) -> Iterator[Difference]:
    found = {entity.name: entity for entity in live}
    names = {entity.name for entity in wanted}
    for entity in wanted:
        if entity.name not in found:
            yield Difference(kind, entity.name, Verdict.MISSING, Action.CREATE, "not there", (entity.name,))
        elif changes := "; ".join(_changes(entity, found[entity.name])):
            yield Difference(kind, entity.name, Verdict.DIFFERS, Action.REFUSE, changes, (entity.name,))
    for name in sorted(found.keys() - names):
        if name.startswith(prefix):
            yield Difference(kind, name, Verdict.EXTRA, Action.KEEP, "not in the map", (name,))


def _changes(wanted: Exchange | Queue, live: Exchange | Queue) -> Iterator[str]:
    for field in dataclasses.fields(wanted):
        if field.name == "arguments":
            yield from changed_arguments(wanted.arguments, live.arguments)
        elif getattr(wanted, field.name) != getattr(live, field.name):
            yield f"{field.name} is {getattr(live, field.name)}, the map has {getattr(wanted, field.name)}"


def changed_arguments(wanted: Arguments, live: Arguments) -> Iterator[str]:
    """Each argument that differs, as a sentence."""
    for name in sorted(wanted.keys() | live.keys()):
        if wanted.get(name) != live.get(name):
            yield f"{name} is {live.get(name, 'unset')}, the map has {wanted.get(name, 'unset')}"


def _bindings(wanted: BrokerMap, live: BrokerMap) -> Iterator[Difference]:
    exchanges = {exchange.name for exchange in wanted.exchanges}
    queues = {queue.name for queue in wanted.queues}
    for binding in wanted.bindings:
        if binding not in live.bindings:
            yield Difference("binding", str(binding), Verdict.MISSING, Action.CREATE, "not there", (binding.queue,))
    for binding in live.bindings:
        ours = binding.exchange in exchanges or (binding.exchange and binding.queue in queues)
        if wanted.is_replaced(binding):
            detail = "others take its place: messages come twice, the second copy is acked without a run"
            yield Difference("binding", str(binding), Verdict.DIFFERS, Action.REMOVE, detail, (binding.queue,))
        elif ours and binding not in wanted.bindings:
            yield Difference("binding", str(binding), Verdict.EXTRA, Action.KEEP, "not in the map", (binding.queue,))


def _policies(wanted: BrokerMap, live: BrokerMap) -> Iterator[Difference]:
    found = {policy.name: policy for policy in live.policies}
    for policy in wanted.policies:
        governed = tuple(queue.name for queue in wanted.queues if policy.governs(queue.name))
        if policy.name not in found:
            yield Difference("policy", policy.name, Verdict.MISSING, Action.CREATE, "not there", governed)
        elif found[policy.name] != policy:
            detail = "; ".join(_policy_changes(policy, found[policy.name]))
            yield Difference("policy", policy.name, Verdict.DIFFERS, Action.UPDATE, detail, governed)
    yield from _shadowed(wanted, live)


def _policy_changes(wanted: Policy, live: Policy) -> Iterator[str]:
    yield from changed_arguments(wanted.definition, live.definition)
    for name in ("pattern", "priority", "apply_to"):
        if getattr(wanted, name) != getattr(live, name):
            yield f"{name} is {getattr(live, name)}, the map has {getattr(wanted, name)}"


def _shadowed(wanted: BrokerMap, live: BrokerMap) -> Iterator[Difference]:
    """A stranger's policy of a higher priority silently replaces ours, all of it."""
    ours = {policy.name for policy in wanted.policies}
    for queue in wanted.queues:
        obeyed, meant = live.policy_of(queue.name), wanted.policy_of(queue.name)
        if meant and obeyed and obeyed.name not in ours:
            detail = f"{queue.name} obeys this one instead of {meant.name}: delete it or lower its priority"
            yield Difference("policy", obeyed.name, Verdict.DIFFERS, Action.REFUSE, detail, (queue.name,))
