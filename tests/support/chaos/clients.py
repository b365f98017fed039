"""Clients of the API: order tasks of mixed kinds from several threads and note every answer.

A client with a key repeats its order, with the same key, until it gets a 202; one without a key takes the first
answer for good, as it must. Which orders a client makes follows from the seed; when, from how it goes.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from support.chaos.facts import Answer, Order, Redrive

#: Seconds a client waits for an answer: longer than any may take, so that a late one is seen and not cut off.
PATIENCE = 20.0

#: Seconds for which an order with a key is repeated.
INSIST = 60.0

#: Seconds for which the kind ``later`` is delayed at most.
LATEST = 10

#: Kinds of tasks and how many in a hundred.
KINDS = {
    "fast": 38, "later": 6, "slow": 10, "twins": 12, "flaky": 9, "throttled": 4, "lost-answer": 6, "echo": 6,
    "echo-flaky": 4, "permanent": 3, "hopeless": 2,
}  # fmt: skip


@dataclasses.dataclass(order=True)
class _Due:
    at: float
    order: Order = dataclasses.field(compare=False)
    until: float = dataclasses.field(compare=False)
    tries: int = dataclasses.field(compare=False, default=0)


class Notes:
    """What all clients noted. Thread-safe, as appending to a list is."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.answers: list[Answer] = []
        self.redrives: list[Redrive] = []
        self.accepted: set[str] = set()


class Client:
    """One client.

    Args:
        name: unique.
        url: the gateway's.
        ledger: the ledger's URL.
        seed: of the run.
        pause: seconds between two orders, on average.
        notes: where it writes.
    """

    def __init__(self, name: str, url: str, ledger: str, seed: int, pause: float, notes: Notes) -> None:
        self._name = name
        self._ledger = ledger
        self._rng = random.Random(f"{seed}-{name}")
        self._pause = pause
        self._notes = notes
        self._due: list[_Due] = []
        self._made = 0
        self._http = Caller(url, notes)

    def run(self, stop: threading.Event) -> None:
        """Order until stopped, then bring what is repeated to its end."""
        upcoming = time.monotonic()
        tick = threading.Event()  # never set: the pace of a client
        while not stop.is_set() or self._due:
            now = time.monotonic()
            if self._due and self._due[0].at <= now:
                self._again(heapq.heappop(self._due))
            elif not stop.is_set() and upcoming <= now:
                upcoming = now + self._rng.expovariate(1 / self._pause)
                self._order()
            else:
                tick.wait(0.02)
        self._http.close()

    def _order(self) -> None:
        self._made += 1
        order = make(self._rng, f"{self._name}-{self._made}", self._ledger)
        self._notes.orders.append(order)
        if order.kind == "twins":
            self._twins(order)
            return
        answer = self._http.submit(order, 0)
        if order.key is not None and not _settled(answer):
            self._later(_Due(0.0, order, time.monotonic() + INSIST))

    def _twins(self, order: Order) -> None:
        """The same order from three threads at once, and again later."""
        callers = [Caller(self._http.url, self._notes) for _ in range(3)]
        threads = [threading.Thread(target=each.submit, args=(order, n)) for n, each in enumerate(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for each in callers:
            each.close()
        now = time.monotonic()
        heapq.heappush(self._due, _Due(now + self._rng.uniform(0.5, 6), order, now + INSIST, tries=3))

    def _again(self, due: _Due) -> None:
        answer = self._http.submit(due.order, due.tries)
        if not _settled(answer) and time.monotonic() < due.until:
            self._later(due)

    def _later(self, due: _Due) -> None:
        wait = min(4.0, 0.3 * 1.5**due.tries) * self._rng.uniform(0.7, 1.3)
        heapq.heappush(self._due, _Due(time.monotonic() + wait, due.order, due.until, due.tries + 1))


def _settled(answer: Answer) -> bool:
    """Whether repeating can add nothing."""
    return answer.status == 202 or answer.status in {400, 401, 403, 413, 415, 422}


def make(rng: random.Random, label: str, ledger: str) -> Order:
    """An order of a random kind.

    Args:
        rng: the client's own.
        label: of the order.
        ledger: the ledger's URL.
    """
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    key = f"key-{label}" if kind == "twins" or rng.random() < 0.7 else None
    if kind.startswith("echo"):
        fails = rng.randint(1, 3) if kind == "echo-flaky" else 0
        return Order(label, kind, key, "echo", {"message": label, "sleepSeconds": 0.2, "failTimes": fails})
    wish: dict[str, Any] = {"label": label, **_wish(kind, rng)}
    payload = {"method": "POST", "url": f"{ledger}/effects", "json": wish, "timeoutSeconds": 10}
    delay = rng.randint(1, LATEST) if kind == "later" else 0
    return Order(label, kind, key, "http.request", payload, delay)


def _wish(kind: str, rng: random.Random) -> dict[str, Any]:
    wishes: dict[str, Callable[[], dict[str, Any]]] = {
        "slow": lambda: {"sleep": round(rng.uniform(0.3, 2.5), 2)},
        "flaky": lambda: {"fail": rng.randint(1, 3), "status": rng.choice([500, 502, 503, 504])},
        "throttled": lambda: {"fail": rng.randint(1, 3), "status": 429},
        "lost-answer": lambda: {"lost": rng.randint(1, 2)},
        "permanent": lambda: {"permanent": True},
        # Some come back by a redrive: the first cycle has four attempts.
        "hopeless": lambda: {"fail": rng.choice([5, 6, 999]), "status": 500},
    }
    return wishes.get(kind, dict)()


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
        body = {"type": order.type, "payload": order.payload}
        if order.delay:
            body["options"] = {"delaySeconds": order.delay}
        return self.call("POST", "/v1/tasks", order.label, json=body, headers=headers)[0]

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
        if answer.status == 202 and label:
            self._notes.accepted.add(answer.task_id)
        return answer, body

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class Reader:
    """A client that only looks: at tasks, lists and health.

    Args:
        caller: its own.
        seed: of the run.
        notes: whose accepted tasks it looks at.
    """

    def __init__(self, caller: Caller, seed: int, notes: Notes) -> None:
        self._caller = caller
        self._rng = random.Random(f"{seed}-reader")
        self._notes = notes

    def run(self, stop: threading.Event) -> None:
        """Look until stopped."""
        while not stop.wait(self._rng.uniform(0.1, 0.5)):
            known = list(self._notes.accepted)[-50:]
            paths = ["/livez", "/readyz", "/v1/tasks?limit=5", "/v1/queues", "/v1/dead-letters?limit=5"]
            if known:
                task = self._rng.choice(known)
                paths += [f"/v1/tasks/{task}", f"/v1/tasks/{task}/events", f"/v1/tasks/{task}"]
            self._caller.call("GET", self._rng.choice(paths))
        self._caller.close()


class Operator:
    """An operator, who redrives dead letters.

    Args:
        caller: its own.
        seed: of the run.
        notes: where it writes.
    """

    def __init__(self, caller: Caller, seed: int, notes: Notes) -> None:
        self._caller = caller
        self._rng = random.Random(f"{seed}-operator")
        self._notes = notes

    def run(self, stop: threading.Event) -> None:
        """Redrive a dead letter now and then."""
        while not stop.wait(self._rng.uniform(0.5, 2.5)):
            _, page = self._caller.call("GET", "/v1/dead-letters?limit=20")
            dead_letters = [each["taskId"] for each in (page or {}).get("items", []) if self._ours(each)]
            if dead_letters:
                chosen = self._rng.choice(dead_letters)
                at = time.time()
                answer, _ = self._caller.call("POST", f"/v1/dead-letters/{chosen}/redrive")
                self._notes.redrives.append(Redrive(chosen, at, answer.status))
        self._caller.close()

    @staticmethod
    def _ours(dead_letter: dict[str, Any]) -> bool:
        """Not poison, and not sent again too often already."""
        return dead_letter["principal"] == "local" and dead_letter["cycle"] < 2
