"""``POST /v1/tasks/batch``: many tasks in one request, each with a verdict of its own.

Every item goes the way of a single `POST /v1/tasks`, with its order and its errors: what a crash leaves behind is what it
leaves of so many single requests. A hundred are on their way at the same time, so their scripts, messages and marks share
round trips.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, heavy, side_by_side, validation
from dispatch.gateway.http.operations import Meter, Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import FieldError, Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.http.slots import Slots
from dispatch.gateway.views.intake import Intake, Valid

#: Batches that a process holds at the same time, and those of one principal among them.
PLACES, SHARE = 4, 2

#: Items that are on their way at the same time.
ABREAST = 100

#: Seconds after the body's arrival within which an item must begin: one that begins then ends within five, whatever is silent.
BEGIN_WITHIN = 2.5

#: Seconds after which an item that did not begin may be sent again.
_RETRY = 1


class BatchViews:
    """The operation on many tasks.

    Args:
        intake: takes tasks in.
        meter: counts each item as a request.
        problem: what an error is to the client.
        max_body: bytes of a batch.
        max_item: bytes of an item, as of a single request's body.
    """

    def __init__(
        self,
        intake: Intake,
        meter: Meter,
        problem: Callable[[Exception], Problem],
        *,
        max_body: int,
        max_item: int,
    ) -> None:
        self._intake = intake
        self._meter = meter
        self._problem = problem
        self._max_body = max_body
        self._max_item = max_item
        self._slots = Slots(PLACES, SHARE)

    @operation(
        Operation(
            "POST", "/v1/tasks/batch", "submitTasks", "Tasks", "Submit many tasks",
            (ResponseSpec(207, "A verdict for each item, in their order.", response_models.BatchVerdictsModel),),
            scope=api_keys.TASKS_WRITE,
            description="Each item is accepted or refused by itself, as by `POST /v1/tasks`: quotas, the queue's limit and scopes "
            "apply to each, and after any problem but `publish-unconfirmed` its task never runs. `idempotencyKey` makes a "
            "repeated item safe, also as a single request. After an error of the whole request no item runs.",
            body=request_models.BatchBody,
            problems=("gateway-busy",),
        )
    )  # fmt: skip
    def submit(self) -> Reply:
        """Validate, admit and accept each item."""
        principal = context.principal()
        with self._slots.one(principal.id):  # before the body is read: a client that trickles holds a place, not memory
            raw = validation.read_body(self._max_body)
            began = time.monotonic()
            items = heavy.run(len(raw), functools.partial(self._read, raw, principal.scopes))
            return json_reply({"items": self._verdicts(items, began)}, 207)

    def _read(self, raw: bytes, scopes: Collection[str]) -> list[_Item]:
        """The items, each valid or with its problem; raises Problem for the whole. Pure."""
        value = validation.parse_object(raw)
        given: Any = value.get("items")
        if isinstance(given, list):
            value = {**value, "items": [{}] * len(given)}
        count = len(validation.parse(request_models.BatchEnvelope, value).items)
        return [self._item(given[number], number, scopes) for number in range(count)]

    def _item(self, given: Any, number: int, scopes: Collection[str]) -> _Item:
        item = _Item(number)
        try:
            body = validation.parse(request_models.BatchItem, given, text=_text(given, self._max_item))
            item.key = body.idempotency_key
            item.valid = self._intake.valid(body, scopes, keyed=item.key is not None)
        except Problem as exc:
            item.refused = exc
        return item

    def _verdicts(self, items: Sequence[_Item], began: float) -> list[dict[str, Any]]:
        principal = context.principal().id
        most = max(1, min(ABREAST, self._intake.allowance(principal).room // 10))
        first, again = _repeats_apart([item for item in items if item.refused is None])
        for some in (first, again):
            side_by_side.run([functools.partial(self._take, item, began) for item in some], most)
        return [item.verdict or self._refusal(item, item.refused) for item in items]

    def _take(self, item: _Item, began: float) -> None:
        if time.monotonic() - began > BEGIN_WITHIN:
            late = Problem("gateway-busy", "The batch takes too long: the item was not begun.", retry_after=_RETRY)
            item.verdict = self._refusal(item, late)
            return
        try:
            item.verdict = self._accepted(item)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is this item's
            item.verdict = self._refusal(item, exc)

    def _accepted(self, item: _Item) -> dict[str, Any]:
        assert item.valid is not None  # noqa: S101 - those that are not have their problem
        principal, rider = context.principal().id, None
        if item.number:  # the request itself counts as the first
            rider = self._meter.charge(principal, reads=False)
            if rider is None:
                self._meter.spend(principal)
        try:
            accepted = self._intake.take(self._intake.submission(item.valid, item.key, rider))
        finally:
            if rider is not None and not rider.sent:
                self._meter.spend(principal)
        task = context.task_json(accepted.record)
        return {"status": 202, "replayed": accepted.replayed, "task": task, "problem": None}

    def _refusal(self, item: _Item, exc: Exception | None) -> dict[str, Any]:
        problem = self._problem(exc or Problem("internal-error"))
        body = context.problem_json(problem) | {"instance": f"{quote(context.current().path)}#/items/{item.number}"}
        if "Retry-After" in problem.headers:
            body["retryAfter"] = int(problem.headers["Retry-After"])
        return {"status": body["status"], "replayed": False, "task": None, "problem": body}


class _Item:
    """One item on its way to its verdict."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.key: str | None = None  #: as it was sent
        self.valid: Valid | None = None
        self.refused: Problem | None = None  #: before anything was done
        self.verdict: dict[str, Any] | None = None


def _text(given: Any, most: int) -> bytes:
    """An item as JSON; raises Problem."""
    if not isinstance(given, dict):
        raise validation.invalid(FieldError("", "The item must be an object.", "object_type"))
    text = orjson.dumps(given)
    if len(text) > most:
        raise Problem("body-too-large")
    return text


def _repeats_apart(items: Sequence[_Item]) -> tuple[list[_Item], list[_Item]]:
    """Those whose Idempotency-Key an earlier item has come after it: they are its replays."""
    seen: set[str] = set()
    first: list[_Item] = []
    again: list[_Item] = []
    for item in items:
        (again if item.key is not None and item.key in seen else first).append(item)
        if item.key is not None:
            seen.add(item.key)
    return first, again
