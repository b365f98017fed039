"""Sends requests to the API and notes what came of each."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

import httpx

from support.chaos.facts import Act, Answer, Order

#: Seconds a client waits for an answer: longer than any may take, so that a late one is seen and not cut off.
PATIENCE = 20.0

#: What is kept of an answer to a verb.
_KEPT = ("state", "cancelRequested", "jobId", "matched", "revision", "taskId", "signal")

#: Answers after which a verb is not repeated.
FINAL = frozenset({200, 201, 202, 204, 404, 409, 410, 412, 422})


class Notes:
    """What all clients noted. Thread-safe, as appending to a list is."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.answers: list[Answer] = []
        self.acts: list[Act] = []
        self.schedules: list[dict[str, Any]] = []
        self.accepted: dict[str, Order] = {}  #: by task id, in the order of the answers
        self._numbers = itertools.count()

    def number(self) -> int:
        """One that no other request has."""
        return next(self._numbers)

    def recent(self, count: int, kinds: Collection[str] = ()) -> list[str]:
        """The tasks that were accepted last."""
        found = [task_id for task_id, order in list(self.accepted.items()) if not kinds or order.kind in kinds]
        return found[-count:]


class Caller:
    """Sends requests and notes what came of them.

    Args:
        url: the gateway's.
        notes: where it writes.
    """

    def __init__(self, url: str, notes: Notes) -> None:
        self.url = url
        self._notes = notes
        self._http = httpx.Client(timeout=httpx.Timeout(PATIENCE), trust_env=False)

    def submit(self, order: Order, number: int) -> Answer:
        """POST an order."""
        headers = {"X-Request-Id": f"{order.label}.{number}"}
        if order.key is not None:
            headers["Idempotency-Key"] = order.key
        answer, _ = self.call("POST", "/v1/tasks", order.label, json=_body(order), headers=headers)
        if answer.status == 202:
            self._notes.accepted[answer.task_id] = order
        return answer

    def submit_batch(self, orders: Sequence[Order], label: str, number: int) -> list[Answer]:
        """POST orders as a batch; an answer for each of them."""
        items = [{**_body(order), "idempotencyKey": order.key} for order in orders]
        headers = {"X-Request-Id": f"{label}.{number}"}
        answer, body = self.call("POST", "/v1/tasks/batch", json={"items": items}, headers=headers)
        if answer.status == 207:
            found = [_verdict(answer, order, one) for order, one in zip(orders, body["items"], strict=True)]
        else:
            found = [Answer(**{**vars(answer), "label": order.label}) for order in orders]
        for order, one in zip(orders, found, strict=True):
            self._notes.answers.append(one)
            if one.status == 202:
                self._notes.accepted[one.task_id] = order
        return found

    def act(
        self, verb: str, method: str, path: str, target: str, asked: dict[str, Any] | None = None, **request: Any
    ) -> Act:
        """Use a verb, and note it."""
        request_id = f"act-{self._notes.number()}"
        headers = {"X-Request-Id": request_id, **request.pop("headers", {})}
        at = time.time()
        answer, body = self.call(method, path, headers=headers, **request)
        kept = {name: body[name] for name in _KEPT if isinstance(body, dict) and name in body}
        done = Act(verb, target, at, time.time(), answer.status, request_id, answer.problem, asked or {}, kept)
        self._notes.acts.append(done)
        return done

    def insist(self, seconds: float, verb: str, method: str, path: str, target: str, **request: Any) -> Act:
        """Use a verb again and again until it is answered for good."""
        pace, until = threading.Event(), time.monotonic() + seconds
        while True:
            done = self.act(verb, method, path, target, **request)
            if done.status in FINAL or time.monotonic() > until:
                return done
            pace.wait(0.5)

    def call(self, method: str, path: str, label: str = "", **request: Any) -> tuple[Answer, Any]:
        """One request: what is noted, and the answer's JSON."""
        at, began = time.time(), time.monotonic()
        what = f"{method} {'/'.join(path.split('?', maxsplit=1)[0].split('/')[:3])}"
        body: Any = None
        try:
            got = self._http.request(method, f"{self.url}{path}", **request)
            seconds = time.monotonic() - began
            body = got.json() if "json" in got.headers.get("content-type", "") else None
            fields = body if isinstance(body, dict) else {}
            problem = str(fields.get("type", "")).rpartition("/")[2] if got.status_code >= 400 else ""
            task_id = str(fields.get("taskId") or "")
            answer = Answer(label, what, at, seconds, got.status_code, problem, task_id)
        except (httpx.TransportError, ValueError) as exc:
            unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
            answer = Answer(label, what, at, time.monotonic() - began, error=type(exc).__name__, unsent=unsent)
        self._notes.answers.append(answer)
        return answer, body

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _body(order: Order) -> dict[str, Any]:
    body: dict[str, Any] = {"type": order.type, "payload": order.payload}
    options = {**order.options, **({"delaySeconds": order.delay} if order.delay else {})}
    return {**body, "options": options} if options else body


def _verdict(answer: Answer, order: Order, verdict: dict[str, Any]) -> Answer:
    """What an item would have been answered alone."""
    problem = str((verdict["problem"] or {}).get("type", "")).rpartition("/")[2]
    task_id = str((verdict["task"] or {}).get("taskId") or "")
    what = "POST /v1/tasks"
    return Answer(order.label, what, answer.at, answer.seconds, verdict["status"], problem, task_id)
