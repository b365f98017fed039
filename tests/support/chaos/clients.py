"""Clients of the API: order tasks of mixed kinds from several threads, one by one and in batches.

A client with a key repeats its order, with the same key, until it gets a 202; one without a key takes the first
answer for good, as it must. Which orders a client makes follows from the seed; when, from how it goes.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
import threading
import time
from collections.abc import Sequence

from support.chaos import orders
from support.chaos.caller import Caller, Notes
from support.chaos.facts import Answer, Order

#: Seconds for which an order with a key is repeated.
INSIST = 60.0

#: One in so many times a client sends a batch.
BATCH_EVERY = 25


@dataclasses.dataclass(order=True)
class _Due:
    at: float
    orders: Sequence[Order] = dataclasses.field(compare=False)
    until: float = dataclasses.field(compare=False)
    tries: int = dataclasses.field(compare=False, default=0)
    batch: str = dataclasses.field(compare=False, default="")  #: its label; empty of a single order


class Client:
    """One client.

    Args:
        name: unique.
        url: the gateway's.
        book: where effects land.
        seed: of the run.
        pause: seconds between two orders, on average.
        notes: where it writes.
    """

    def __init__(self, name: str, url: str, book: orders.Book, seed: int, pause: float, notes: Notes) -> None:
        self._name = name
        self._book = book
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
        label = f"{self._name}-{self._made}"
        if self._rng.randrange(BATCH_EVERY) == 0:
            made = orders.batch(self._rng, label, self._book)
            self._notes.orders.extend(made)
            self._send_batch(_Due(0.0, made, time.monotonic() + INSIST, batch=label))
            return
        order = orders.make(self._rng, label, self._book)
        self._notes.orders.append(order)
        if order.kind == "twins":
            self._twins(order)
            return
        answer = self._http.submit(order, 0)
        if order.key is not None and not _settled(answer):
            self._later(_Due(0.0, [order], time.monotonic() + INSIST))

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
        heapq.heappush(self._due, _Due(now + self._rng.uniform(0.5, 6), [order], now + INSIST, tries=3))

    def _again(self, due: _Due) -> None:
        if due.batch:
            self._send_batch(due)
        elif not _settled(self._http.submit(due.orders[0], due.tries)) and time.monotonic() < due.until:
            self._later(due)

    def _send_batch(self, due: _Due) -> None:
        """The whole batch again until each item is settled: those that are accepted are replayed."""
        answers = self._http.submit_batch(due.orders, due.batch, due.tries)
        if not all(map(_settled, answers)) and time.monotonic() < due.until:
            self._later(due)

    def _later(self, due: _Due) -> None:
        wait = min(4.0, 0.3 * 1.5**due.tries) * self._rng.uniform(0.7, 1.3)
        heapq.heappush(self._due, dataclasses.replace(due, at=time.monotonic() + wait, tries=due.tries + 1))


def _settled(answer: Answer) -> bool:
    """Whether repeating can add nothing."""
    return answer.status == 202 or answer.status in {400, 401, 403, 413, 415, 422}


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
            known = self._notes.recent(50)
            paths = [
                "/livez", "/readyz", "/v1/tasks?limit=5", "/v1/queues", "/v1/dead-letters?limit=5", "/v1/stats", "/v1/keys",
                "/v1/pauses", "/v1/jobs", "/v1/schedules", "/v1/tasks?label=group=a&limit=5", "/v1/audit?limit=5", "/v1/workers",
            ]  # fmt: skip
            if known:
                task = self._rng.choice(known)
                looks = ("", "/events", "", "/payload", "/children")
                paths += [f"/v1/tasks/{task}{look}" for look in looks]
            self._caller.call("GET", self._rng.choice(paths))
        self._caller.close()
