"""One log line when a server can't be used, one when the reason changes, one when it can be used again."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from dispatch.errors import Trouble
from dispatch.telemetry.logs import logger

log = logger(__name__)

#: Seconds without a refused command after which nothing counts as refused any more: until then, commands that the server refuses
#: and others that it carries out would take turns in the log.
QUIET = 60.0


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Log none of it in the block: a command prints the error that it ends with."""
    own = logging.getLogger(__name__)
    level = own.level
    own.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        own.setLevel(level)


class TroubleLog:
    """What keeps one client of a server from using it. Thread-safe."""

    def __init__(self) -> None:
        self.now: Trouble | None = None  #: None while the server can be used
        self._seen_at = 0.0
        self._lock = threading.Lock()

    def met(self, trouble: Trouble) -> bool:
        """The server could not be used.

        Args:
            trouble: why.

        Returns:
            Whether that is news.
        """
        with self._lock:
            changed, self.now, self._seen_at = trouble != self.now, trouble, time.monotonic()
        if changed:
            event = f"{trouble.server} refuses" if trouble.refuses else f"no connection to {trouble.server}"
            log.warning(event, reason=trouble.reason, where=trouble.where, detail=trouble.detail or None)
        return changed

    def worked(self) -> None:
        """The server carried out something; others may still be refused."""
        now = self.now
        if now is not None and not (now.refuses and time.monotonic() - self._seen_at < QUIET):
            self.over()

    def over(self) -> None:
        """Nothing keeps the client from using the server."""
        if self.now is None:
            return
        with self._lock:
            was, self.now = self.now, None
        if was is not None:
            log.info(f"{was.server} refuses no longer" if was.refuses else f"connected to {was.server} again")
