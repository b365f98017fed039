"""Defers a shutdown to the boundary between two iterations of the event loop.

Celery runs the whole cold shutdown in its signal handler, wherever that interrupts the main process: it sleeps there for
`soft_shutdown`, then reads from the broker, accepts tasks, grows and stops the pool. During a fork the pool then finds a
process without a pid, and the error is not handled: the worker neither works nor ends.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery.worker import state

from dispatch.telemetry import logger
from dispatch.worker.loop import LoopBridge

log = logger(__name__)

#: Seconds for the loop to finish its iteration. Without a connection there is no loop: the shutdown starts anyway.
PATIENCE = 2.0

#: Exit status of a worker that leaves by itself, sysexits' EX_TEMPFAIL: a supervisor that goes by the status starts it again.
LEFT = 75

_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)

#: Those of a cold shutdown, which ends what still runs after `soft_shutdown`.
_COLD = {signal.SIGQUIT, *([signal.SIGTERM] if REMAP_SIGTERM == "SIGQUIT" else [])}

#: Signal of the watch thread to the main thread: the loop did not finish its iteration.
_NOW = signal.SIGRTMIN


class Shutdown:
    """Defers Celery's signal handlers to the end of the loop's iteration.

    Args:
        loop: calls functions between two iterations.
    """

    def __init__(self, loop: LoopBridge) -> None:
        self._loop = loop
        self._handler: Callable[[], Any] | None = None
        self.begun = False  #: the worker accepts no more deliveries
        self._between = False  # the loop has finished its iteration
        self.before: Callable[[bool], None] = lambda _: (
            None
        )  #: called first, between two iterations; whether it is a cold one

    def install(self) -> None:
        """Wrap Celery's handlers; main thread only, after Celery has installed them."""
        reader, writer = os.pipe()
        threading.Thread(target=self._watch, args=[reader], name="shutdown-watch", daemon=True).start()
        signal.signal(_NOW, lambda *_: self._begin())
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, self._deferred(handler, writer))

    def _deferred(self, handler: Callable[..., Any], watch: int) -> Callable[..., None]:
        def on_signal(number: int, _frame: Any) -> None:
            if self.begun:  # escalates a warm shutdown to a cold one
                handler(number, None)
                return
            # No lock may be acquired here: the interrupted code may hold it.
            repeated, self._handler = self._handler is not None, lambda: handler(number, None)
            if repeated:
                self._begin()
                return
            self._loop.call(functools.partial(self._begin_between, number in _COLD))
            os.write(watch, b"\0")

        return on_signal

    def leave(self, reason: str) -> None:
        """End the worker by itself: it accepts nothing any more, what runs ends, and the exit status is `LEFT`.

        Args:
            reason: for the log.
        """
        if self._handler is None:
            log.critical("the worker finishes what it runs, and ends", reason=reason, status=LEFT)
            self._handler = lambda: setattr(state, "should_stop", LEFT)
            self._loop.call(functools.partial(self._begin_between, cold=False))

    def _begin(self) -> None:
        if not self.begun and self._handler is not None:
            self.begun = True
            self._handler()

    def _begin_between(self, cold: bool) -> None:
        self._between = True
        try:
            self.before(cold)
        finally:
            self._begin()

    def _watch(self, reader: int) -> None:
        os.read(reader, 1)
        time.sleep(PATIENCE)
        if not (self.begun or self._between):
            log.warning("the event loop did not finish its iteration: shutting down anyway", seconds=PATIENCE)
            os.kill(os.getpid(), _NOW)
