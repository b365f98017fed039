"""A rate limit in this process's memory: what it refuses costs no round trip to Redis.

For requests without an API key, each of which would otherwise cost Redis a script. The limit holds for each gateway process.
"""

from __future__ import annotations

import collections
import math
import threading
import time

#: Seconds that a limit counts for.
WINDOW = 60.0

#: Keys that are remembered; beyond them the one that was counted longest ago is forgotten.
MOST = 10_000


class LocalRate:
    """Counts by key: the generic cell rate algorithm. Thread-safe.

    Args:
        limit: requests of one key within `WINDOW`; 0 is no limit.
        most: keys that are remembered.
    """

    def __init__(self, limit: int, *, most: int = MOST) -> None:
        self._each = WINDOW / limit if limit else 0.0
        self._most = most
        self._whole: collections.OrderedDict[str, float] = collections.OrderedDict()  # when the share is whole again
        self._lock = threading.Lock()

    def take(self, key: str) -> int | None:
        """Count a request.

        Args:
            key: whose it is.

        Returns:
            None where it is within the limit; otherwise whole seconds until one more is.
        """
        if not self._each:
            return None
        now = time.monotonic()
        with self._lock:
            whole = max(self._whole.get(key, 0.0), now) + self._each
            if whole - now > WINDOW + self._each / 1_000:
                return max(1, math.ceil(whole - now - WINDOW))
            self._whole[key] = whole
            self._whole.move_to_end(key)
            if len(self._whole) > self._most:
                self._whole.popitem(last=False)
        return None
