"""Which tasks a client orders. Pure: they follow from its seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from support.chaos.facts import Order

#: Seconds for which the kind ``later`` is delayed at most.
LATEST = 10

#: Kinds of tasks and how many in a hundred.
KINDS = {
    "fast": 20, "later": 5, "slow": 6, "twins": 8, "flaky": 7, "throttled": 3, "lost-answer": 4, "echo": 4,
    "echo-flaky": 3, "permanent": 2, "hopeless": 2, "wait": 4, "signalled": 4, "called-back": 3, "parent": 3,
    "robot": 6, "client-key": 3, "narrow": 3, "paced": 4, "undone": 5, "deadline": 3, "hooked": 2,
}  # fmt: skip

#: Robots, and keys that clients give: few, so that tasks wait for each other.
ROBOTS = ("robot-1", "robot-2", "robot-3")
CLIENT_KEYS = ("crate-1", "crate-2")

#: How many in a hundred of what lands in the ledger announce their end, and bear a label that operators look for.
HOOKED, LABELLED = 6, 30

#: Items of a batch, least and most.
BATCH = (3, 12)


@dataclasses.dataclass(frozen=True)
class Book:
    """Where effects land.

    Args:
        ledger: its URL.
    """

    ledger: str

    @property
    def effects(self) -> str:
        """Where an effect is posted."""
        return f"{self.ledger}/effects"

    @property
    def webhooks(self) -> str:
        """Where a webhook is delivered."""
        return f"{self.ledger}/webhooks"


def batch(rng: random.Random, label: str, book: Book) -> list[Order]:
    """The orders of a batch; each has its label among the task's labels, since a batch has one request id."""
    made = [make(rng, f"{label}b{number}", book) for number in range(rng.randint(*BATCH))]
    keyed = [dataclasses.replace(order, key=f"key-{order.label}") for order in made]
    return [
        dataclasses.replace(order, options={**order.options, "labels": {**_labels(order), "order": order.label}})
        for order in keyed
    ]


def _labels(order: Order) -> dict[str, str]:
    return order.options.get("labels") or {}


def make(rng: random.Random, label: str, book: Book) -> Order:
    """An order of a random kind.

    Args:
        rng: the client's own.
        label: of the order.
        book: where its effect lands.
    """
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    key = f"key-{label}" if kind == "twins" or rng.random() < 0.7 else None
    options: dict[str, Any] = {}
    if kind == "hooked" or rng.randrange(100) < HOOKED:
        options["webhook"] = {"url": book.webhooks}
    if rng.randrange(100) < LABELLED:
        options["labels"] = {"group": rng.choice("abcd")}
    if kind == "deadline":
        options["deadlineSeconds"] = rng.randint(1, 6)
    if kind == "client-key":
        options["concurrencyKey"] = rng.choice(CLIENT_KEYS)
    delay = rng.randint(1, LATEST) if kind == "later" or (kind == "deadline" and rng.random() < 0.3) else 0
    if kind.startswith("echo"):
        fails = rng.randint(1, 3) if kind == "echo-flaky" else 0
        payload = {"message": label, "sleepSeconds": 0.2, "failTimes": fails}
        return Order(label, kind, key, "echo", payload, delay, options)
    if kind in _WALKS or kind in _OTHERS:
        more = _WALKS.get(kind, dict)(rng) if kind in _WALKS else {}
        payload = {"label": label, "url": book.effects, "wish": _wish(kind, rng), **more}
        return Order(label, kind, key, _OTHERS.get(kind, "chaos.walk"), payload, delay, options)
    wish: dict[str, Any] = {"label": label, **_wish(kind, rng)}
    payload = {"method": "POST", "url": book.effects, "json": wish, "timeoutSeconds": 10}
    return Order(label, kind, key, "http.request", payload, delay, options)


#: Types of kinds that are no steps.
_OTHERS = {"narrow": "chaos.narrow", "paced": "chaos.paced", "undone": "chaos.undone"}

_WALKS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "wait": lambda rng: {"steps": rng.randint(1, 3), "seconds": rng.randint(1, 3)},
    "signalled": lambda rng: {"steps": rng.randint(1, 2), "seconds": rng.randint(4, LATEST), "until": ["go"]},
    "called-back": lambda rng: {
        "steps": 1, "seconds": rng.randint(4, LATEST), "until": ["finished"], "callbackAfter": round(rng.uniform(0.1, 3), 1),
    },
    "parent": lambda rng: {"steps": rng.randint(0, 1), "children": rng.randint(1, 3)},
    "robot": lambda rng: {"steps": rng.choice((0, 0, 0, 1)), "robot": rng.choice(ROBOTS)},
}  # fmt: skip

_WISHES: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "slow": lambda rng: {"sleep": round(rng.uniform(0.3, 2.5), 2)},
    "flaky": lambda rng: {"fail": rng.randint(1, 3), "status": rng.choice([500, 502, 503, 504])},
    "throttled": lambda rng: {"fail": rng.randint(1, 3), "status": 429},
    "lost-answer": lambda rng: {"lost": rng.randint(1, 2)},
    "permanent": lambda _: {"permanent": True},
    # Some come back by a redrive: the first cycle has four attempts.
    "hopeless": lambda rng: {"fail": rng.choice([5, 6, 999]), "status": 500},
    "wait": lambda rng: {"fail": rng.choice([0, 0, 0, 1]), "status": 500},
    "parent": lambda rng: {"lost": rng.choice([0, 1])},
    "robot": lambda rng: {"sleep": round(rng.uniform(0.1, 0.5), 2), "fail": rng.choice([0, 0, 0, 1]), "status": 503},
    "client-key": lambda rng: {"sleep": round(rng.uniform(0.1, 0.4), 2)},
    "narrow": lambda rng: {"sleep": round(rng.uniform(0.1, 0.6), 2)},
    "paced": lambda rng: {"sleep": round(rng.uniform(0, 0.3), 2), "fail": rng.choice([0, 0, 0, 1]), "status": 503},
    "undone": lambda rng: {"lost": rng.choice([0, 1, 2]), "sleep": round(rng.uniform(0, 0.5), 2)},
    "deadline": lambda rng: {"fail": rng.choice([0, 1, 2, 3]), "status": 500},
}


def _wish(kind: str, rng: random.Random) -> dict[str, Any]:
    return _WISHES.get(kind, lambda _: {})(rng)
