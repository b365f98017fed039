"""A shutdown begins between two turns of the event loop.

Celery does the whole of a cold shutdown in its signal handler, wherever that interrupts the main process: it sleeps
there for `soft_shutdown`, then reads from the broker, takes tasks, grows and stops the pool. In the middle of a fork the
pool then finds a process without a pid, and the error ends in nobody's hands: a worker that neither works nor ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from dispatch.telemetry import logger
from dispatch.worker.loop import LoopBridge

log = logger("dispatch.shutdown")

#: Seconds for the loop to finish its turn. Without a connection there is no loop: then it begins wherever we are.
PATIENCE = 2.0

_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)

#: How the watch tells the main thread that the loop did not come round.
_NOW = signal.SIGRTMIN


class Shutdown:
    """Puts Celery's handlers off until the loop comes round.

    Args:
        loop: calls functions between two turns.
    """

    def __init__(self, loop: LoopBridge) -> None:
        self._loop = loop
        self._handler: Callable[[], Any] | None = None
        self.begun = False  #: nothing more is taken from now on

    def install(self) -> None:
        """Take Celery's handlers over; main thread only, after Celery has installed them."""
        reader, writer = os.pipe()
        threading.Thread(target=self._watch, args=[reader], name="shutdown-watch", daemon=True).start()
        signal.signal(_NOW, lambda *_: self._begin())
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, self._put_off(handler, writer))

    def _put_off(self, handler: Callable[..., Any], watch: int) -> Callable[..., None]:
        def on_signal(number: int, _frame: Any) -> None:
            if self.begun:  # a warm shutdown that is to become a cold one
                handler(number, None)
                return
            # No lock may be taken here: whoever holds it may be what was interrupted.
            again, self._handler = self._handler is not None, lambda: handler(number, None)
            if again:
                self._begin()
                return
            self._loop.call(self._begin)
            os.write(watch, b"\0")

        return on_signal

    def _begin(self) -> None:
        if not self.begun and self._handler is not None:
            self.begun = True
            self._handler()

    def _watch(self, reader: int) -> None:
        os.read(reader, 1)
        time.sleep(PATIENCE)
        if not self.begun:
            log.warning("the event loop did not come round: shutting down where it is", seconds=PATIENCE)
            os.kill(os.getpid(), _NOW)
