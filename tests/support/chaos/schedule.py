"""Which fault comes when. Pure: the same seed and duration give the same schedule."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence

from support.chaos.facts import Fault

#: Seconds between two faults' beginnings; longer faults overlap.
GAP = (1.2, 3.6)

#: Seconds before the first: RabbitMQ 3.10 loses a quorum queue that is younger than a second when it is killed.
FIRST = (3.0, 4.0)

#: Seconds a killed server stays out of the schedule: a system that is down all the time proves little.
SETTLE = {"rabbitmq": 14.0, "redis": 6.0, "gateway": 6.0, "worker": 9.0}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A kind of fault."""

    name: str
    targets: Callable[[int], Sequence[str]]  #: from the number of workers
    seconds: tuple[float, float] = (0.0, 0.0)
    details: Sequence[str] = ("",)


def _workers(count: int) -> list[str]:
    return [f"worker{number}" for number in range(1, count + 1)]


def _wires_to(server: str) -> Callable[[int], Sequence[str]]:
    return lambda count: [f"{who}-{server}" for who in ("gateway", *_workers(count))]


def _only(*names: str) -> Callable[[int], Sequence[str]]:
    return lambda _: names


_DIRECTIONS = ("up", "down", "both")

RECIPES = (
    Recipe("kill", _only("gateway")),
    Recipe("kill", _only("rabbitmq")),
    Recipe("kill", _only("redis")),
    Recipe("kill", _workers),
    Recipe("kill-child", _only("gateway"), details=("one", "all")),
    Recipe("kill-child", _workers, details=("one",)),
    Recipe("kill-child", _workers, details=("all",)),
    Recipe("cut", _wires_to("rabbitmq")),
    Recipe("cut", _wires_to("rabbitmq")),
    Recipe("cut", _wires_to("redis")),
    Recipe("refuse", _wires_to("rabbitmq"), (0.5, 4)),
    Recipe("refuse", _wires_to("redis"), (0.5, 4)),
    Recipe("hold", _wires_to("rabbitmq"), (0.5, 6), _DIRECTIONS),
    Recipe("hold", _wires_to("rabbitmq"), (0.5, 6), _DIRECTIONS),
    Recipe("hold", _wires_to("redis"), (0.5, 6), _DIRECTIONS),
    Recipe("delay", _wires_to("rabbitmq"), (2, 6), ("0.05", "0.2", "0.6")),
    Recipe("delay", _wires_to("redis"), (2, 6), ("0.02", "0.1", "0.4")),
    Recipe("alarm", _only("rabbitmq"), (2, 5)),
    Recipe("full", _only("rabbitmq"), (2, 6)),
    Recipe("unroutable", _only("rabbitmq"), (2, 6)),
    Recipe("stop", _workers, (4, 8)),
    Recipe("stop", _only("gateway"), (1, 7)),
    Recipe("stop", _only("rabbitmq"), (1, 7)),
    Recipe("stop", _only("redis"), (1, 5)),
    Recipe("terminate", _workers),
    Recipe("poison", _only("rabbitmq")),
)


def make(seed: int, duration: float, workers: int, gap: tuple[float, float] = GAP) -> list[Fault]:
    """A schedule.

    Args:
        seed: the same seed, the same schedule.
        duration: seconds in which faults begin and end.
        workers: how many there are.
        gap: seconds from one fault's beginning to the next one's, least and most.

    Returns:
        The faults, by time.
    """
    found = _faults(random.Random(f"schedule-{seed}"), duration, workers, gap)
    return sorted(found, key=lambda fault: fault.at)


def _faults(rng: random.Random, duration: float, workers: int, gap: tuple[float, float]) -> Iterator[Fault]:
    busy: dict[str, float] = {}
    deck: list[Recipe] = []
    at = rng.uniform(*FIRST)
    while at < duration:
        if not deck:  # each kind once before any comes again, so that also a short run has seen most
            deck = list(RECIPES)
            rng.shuffle(deck)
        fault = _drawn(rng, deck.pop(), at, workers)
        free = max(at, busy.get(fault.target, 0.0))
        if free + fault.seconds <= duration:
            fault = dataclasses.replace(fault, at=round(free, 2))
            busy[fault.target] = free + max(fault.seconds, _settle(fault))
            yield fault
        at += rng.uniform(*gap)


def _drawn(rng: random.Random, recipe: Recipe, at: float, workers: int) -> Fault:
    target = rng.choice(recipe.targets(workers))
    seconds = round(rng.uniform(*recipe.seconds), 2)
    return Fault(at, recipe.name, target, seconds, rng.choice(recipe.details))


def _settle(fault: Fault) -> float:
    kind = fault.target.rstrip("0123456789")
    return SETTLE.get(kind, 0.0) if fault.name in {"kill", "terminate"} else 0.5
