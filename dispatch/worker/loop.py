"""The bridge from other threads to the worker's event loop."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import Any

from dispatch.telemetry import logger

log = logger(__name__)


class LoopBridge:
    """Calls functions on the worker's event loop from other threads.

    `hub.call_soon` alone would wait for the next poll, up to a second when idle; a pipe wakes the loop at once.
    """

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._woken = False  #: a byte is in the pipe, or about to be
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def register(self, hub: Any) -> None:
        """Attach to a hub; called anew after each reconnect, which resets the hub."""
        hub.add_reader(self._reader, self.run)
        self.run()

    def call(self, function: Callable[[], None]) -> None:
        """Call a function on the loop's thread, soon."""
        self._calls.append(function)
        if self._woken:
            return
        self._woken = True
        try:
            os.write(self._writer, b"\0")
        except BlockingIOError:
            return  # the pipe is full: the loop will wake

    @property
    def fd(self) -> int:
        """Readable when there is something to call."""
        return self._reader

    def run(self) -> None:
        """Call what waits; for the loop's thread, also when no loop runs any more."""
        try:
            while os.read(self._reader, 4_096):
                pass
        except BlockingIOError:
            pass
        self._woken = False  # first: what comes from here on wakes the loop anew
        while self._calls:
            try:
                self._calls.popleft()()
            except Exception:
                log.exception("a call on the event loop failed")
