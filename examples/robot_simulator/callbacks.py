"""Callbacks: a command's end is POSTed to the URL that came with its order.

One thread for all commands, in the order of their ends, and a few that send: a thousand running orders cost a thousand
entries of a heap. At least once, like a vendor's: a receiver that responds late or with an error gets it again, up to
`TRIES` times.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import heapq
import ssl
import threading
from collections import OrderedDict

import httpx

from examples.robot_simulator.world import ACTIVE, MAX_ENTRIES, SimulatedCommand, World

#: Attempts to deliver a callback.
TRIES = 5

#: Seconds before the second attempt; each further one waits twice as long.
BACKOFF = 0.5

#: Seconds for a receiver to respond.
TIMEOUT = 5.0

#: Callbacks that are sent at the same time.
SENDERS = 4

#: Seconds between two looks at a command that should have ended: its clock may be a test's own.
_LOOK_AGAIN = 0.02

_COUNTS = ("sending", "delivered", "failed")


@dataclasses.dataclass(frozen=True, slots=True)
class PendingCallback:
    """A callback that is due when its command ends."""

    command: SimulatedCommand
    url: str
    failed: int = 0  #: attempts that failed


class Callbacks:
    """Sends the callbacks of a `World`'s commands. Thread-safe; bounded: the oldest are dropped first.

    Args:
        world: has the commands.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._changed = threading.Condition()
        self._due: list[tuple[float, str]] = []  # a heap: when to look, and at which command
        self._pending: OrderedDict[str, PendingCallback] = OrderedDict()
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._closed = False
        self._thread: threading.Thread | None = None
        self._senders = concurrent.futures.ThreadPoolExecutor(SENDERS, thread_name_prefix="callback")

    def watch(self, command: SimulatedCommand, url: str) -> None:
        """POST the command's end to a URL; a later one replaces it.

        Args:
            command: as accepted.
            url: of the receiver.
        """
        if command.job.callback == "never":
            return
        with self._changed:
            self._start()
            known = command.id in self._pending
            self._pending[command.id] = PendingCallback(command, url)
            while len(self._pending) > MAX_ENTRIES:
                self._pending.popitem(last=False)
            heapq.heappush(self._due, (command.ends, command.id))
            if command.job.callback == "early" and not known:
                self._senders.submit(self._post, url, self._world.view(command))
            self._changed.notify()

    def stopped(self, command: SimulatedCommand) -> None:
        """A command was cancelled: its callback is due."""
        with self._changed:
            heapq.heappush(self._due, (self._world.clock(), command.id))
            self._changed.notify()

    def counts(self) -> dict[str, int]:
        """Callbacks that are pending, being sent, delivered, and given up."""
        with self._changed:
            return {"pending": len(self._pending), **self._counts}

    def reset(self) -> None:
        """Drop all callbacks and counts."""
        with self._changed:
            self._pending.clear()
            self._due.clear()
            self._counts = dict.fromkeys(_COUNTS, 0)

    def close(self) -> None:
        """Stop sending; pending callbacks are dropped."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._senders.shutdown(cancel_futures=True)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="callbacks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = self._world.clock()
                if not self._due or self._due[0][0] > now:
                    self._changed.wait(self._due[0][0] - now if self._due else None)
                    continue
                _, command_id = heapq.heappop(self._due)
                if (pending := self._pending.get(command_id)) is not None:
                    self._look(pending, now)

    def _look(self, pending: PendingCallback, now: float) -> None:
        command = self._world.command(pending.command.robot, pending.command.id)
        if command is None:
            self._pending.pop(pending.command.id, None)
        elif command.progress(now)[0] in ACTIVE:
            heapq.heappush(self._due, (now + _LOOK_AGAIN, command.id))
        else:
            self._pending.pop(command.id)
            self._counts["sending"] += 1
            self._senders.submit(self._deliver, dataclasses.replace(pending, command=command))

    def _deliver(self, pending: PendingCallback) -> None:
        view = self._world.view(pending.command)
        delivered = self._post(pending.url, view)
        if delivered and pending.command.job.callback == "twice":
            self._post(pending.url, view)
        with self._changed:
            self._counts["sending"] -= 1
            if delivered or pending.failed + 1 == TRIES or self._closed:
                self._counts["delivered" if delivered else "failed"] += 1
                return
            self._pending.setdefault(pending.command.id, dataclasses.replace(pending, failed=pending.failed + 1))
            due = self._world.clock() + BACKOFF * 2**pending.failed
            heapq.heappush(self._due, (due, pending.command.id))
            self._changed.notify()

    def _post(self, url: str, view: dict[str, object]) -> bool:
        try:
            return httpx.post(url, json=view, timeout=TIMEOUT, trust_env=False, verify=_tls()).is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            return False


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
