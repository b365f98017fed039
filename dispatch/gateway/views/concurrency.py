"""``/v1/keys``: the concurrency keys in use, who holds them, and who waits; the rates of task types, too. For operators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dispatch.config import api_keys as keys
from dispatch.gateway.contract import fields, response_models
from dispatch.gateway.http import context
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.protocol.ids import timestamp
from dispatch.protocol.rates import RateLimit
from dispatch.store.concurrency import ConcurrencyKeys, KeyView
from dispatch.store.rates import Rates, RateView


class ConcurrencyViews:
    """The operations on concurrency keys.

    Args:
        store: the keys.
        rates: the rates.
        limits: the rates of the task types.
    """

    def __init__(self, store: ConcurrencyKeys, rates: Rates, limits: Iterable[RateLimit]) -> None:
        self._store = store
        self._rates = rates
        self._limits = {limit.name: limit for limit in limits}

    @operation(
        Operation(
            "GET", "/v1/keys", "listKeys", "Operators", "The concurrency keys in use",
            (ResponseSpec(200, "The first 200 of them, and each rate.", response_models.KeyListModel, ("Cache-Control",)),),
            scope=keys.TASKS_CONTROL,
            description="Of limits of task types, too: `max_running:<task type>`, `rate:<task type>`.",
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """Keys in use."""
        views = self._store.in_use(fields.MAX_PAGE)
        rates = [show_rate(self._rates.view(limit)) for limit in self._limits.values()]
        return json_reply({"items": [*map(show, views), *rates]})

    @operation(
        Operation(
            "GET", "/v1/keys/{key}", "getKey", "Operators", "Who holds a concurrency key, and who waits for it",
            (ResponseSpec(200, "The key.", response_models.KeyModel, ("Cache-Control",)),),
            scope=keys.TASKS_CONTROL,
            problems=("key-not-in-use",),
        )
    )  # fmt: skip
    def get(self, key: str) -> Reply:
        """One key."""
        context.current().target = key
        if key in self._limits:
            return json_reply(show_rate(self._rates.view(self._limits[key])))
        view = self._store.view(key)
        if view is None:
            raise Problem("key-not-in-use")
        return json_reply(show(view))


def show(view: KeyView) -> dict[str, Any]:
    """A key as the API shows it."""
    return {
        "key": view.name,
        "limit": view.limit,
        "holders": [{"taskId": task_id, "lapsesAt": timestamp(lapses)} for task_id, lapses in view.holders],
        "waiting": view.waiting,
        "next": list(view.first),
        "perSeconds": None,
        "begun": None,
    }


def show_rate(view: RateView) -> dict[str, Any]:
    """A rate as the API shows it, among the keys."""
    return {
        "key": view.name,
        "limit": view.rate.runs,
        "holders": [],
        "waiting": view.waiting,
        "next": list(view.first),
        "perSeconds": view.rate.seconds,
        "begun": view.begun,
    }
