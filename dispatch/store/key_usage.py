"""When each API key was last used: for operators who look for one that is no longer needed. Losing it loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatch.store.scripts import RedisHandle

#: Milliseconds that a last use is remembered: 400 days.
REMEMBERED = 400 * 86_400_000


class KeyUsage:
    """Reads and writes last uses. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def record(self, seen: Mapping[str, float]) -> None:
        """Write last uses.

        Args:
            seen: epoch seconds by the fingerprint of an API key.

        Raises:
            StoreError: Redis did not take them.
        """
        key = self._redis.keys.key_used
        commands = [("SET", key(fingerprint), int(at), "PX", REMEMBERED) for fingerprint, at in seen.items()]
        if commands:
            self._redis.gather(*commands)

    def last(self, fingerprints: Sequence[str]) -> list[int | None]:
        """Last uses in epoch seconds, in the order asked; None for one that is not known.

        Raises:
            StoreError: Redis did not answer.
        """
        if not fingerprints:
            return []
        answers = self._redis.gather(*(("GET", self._redis.keys.key_used(each)) for each in fingerprints))
        return [int(answer) if answer else None for answer in answers]
