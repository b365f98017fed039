"""A few places for requests whose bodies are large while they are carried out: they bound a process's memory."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator

from dispatch.gateway.http.problems import Problem

#: Seconds after which a place may be free.
RETRY = 2


class Slots:
    """A number of places; none waits for one. Thread-safe.

    Args:
        places: for all principals together.
        share: of one principal.
    """

    def __init__(self, places: int, share: int) -> None:
        self._places, self._share = places, share
        self._taken: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one(self, principal: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            Problem: ``gateway-busy``: there is none.
        """
        with self._lock:
            if self._taken.total() >= self._places or self._taken[principal] >= self._share:
                raise Problem("gateway-busy", retry_after=RETRY)
            self._taken[principal] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[principal] -= 1
                if not self._taken[principal]:
                    del self._taken[principal]
