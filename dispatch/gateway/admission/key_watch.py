"""The thread that follows the file of API keys, and records their last uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dispatch.background import Background
from dispatch.errors import StoreError
from dispatch.gateway.http.key_source import KeySource

#: Seconds between two looks at the file: a revoked API key is refused after this at the latest.
INTERVAL = 1.0

#: Seconds between two writes of one API key's last use.
USE_EVERY = 60.0


class LastUses(Protocol):
    """Implemented by `dispatch.store.key_usage.KeyUsage`."""

    def record(self, seen: Mapping[str, float]) -> None:
        """Write last uses; raises StoreError when Redis does not take them."""


class KeyWatch(Background):
    """Looks at the file once a second; writes last uses, at most once a minute for each API key.

    Args:
        source: the API keys.
        usage: where last uses are written.
    """

    def __init__(self, source: KeySource, usage: LastUses) -> None:
        super().__init__("key-watch", interval=INTERVAL)
        self._source = source
        self._usage = usage
        self._written: dict[str, float] = {}

    def step(self) -> None:
        """Look at the file, then write."""
        self._source.refresh()
        used = self._source.used()
        due = {name: at for name, at in used.items() if at - self._written.get(name, 0.0) >= USE_EVERY}
        self._written = {name: at for name, at in self._written.items() if name in used}
        if not due:
            return
        self._written |= due  # also when Redis does not take them: it is asked once a minute, whatever happens
        try:
            self._usage.record(due)
        except StoreError:
            return
