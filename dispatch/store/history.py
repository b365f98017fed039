"""What the workers did, minute by minute: a hash for each minute, to which every worker adds. Losing it loses a drawing.

Counts may be a little off: what Redis may have taken before it fell silent is not added again.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatch.store.scripts import RedisHandle

#: Milliseconds for which a minute is kept: a day and an hour.
KEPT = 25 * 3_600_000

#: Seconds of one bucket.
MINUTE = 60


class History:
    """Reads and writes the minutes. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, minute: int, figures: Mapping[str, int]) -> None:
        """Add to a minute.

        Args:
            minute: epoch minutes.
            figures: counts by name; those that are 0 cost nothing.

        Raises:
            StoreError: Redis did not take them, or did not answer in time.
        """
        key = self._redis.keys.history(minute)
        commands = [("HINCRBY", key, name, count) for name, count in figures.items() if count]
        if commands:
            self._redis.gather(*commands, ("PEXPIRE", key, KEPT))

    def read(self, first: int, last: int) -> list[dict[str, int]]:
        """The minutes from the first to the last, both included; an empty one is one in which nothing ended.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        answers = self._redis.gather(*(("HGETALL", self._redis.keys.history(each)) for each in range(first, last + 1)))
        return [{name: int(count) for name, count in _pairs(answer).items()} for answer in answers]


def _pairs(answer: object) -> Mapping[str, str]:
    if isinstance(answer, Mapping):
        return answer
    assert isinstance(answer, list)  # noqa: S101 - Redis answers a hash as one of both
    return dict(zip(answer[::2], answer[1::2], strict=True))
