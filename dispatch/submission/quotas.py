"""The quotas of what a principal's tasks hold: open tasks, bytes of stored messages, dead letters. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from dispatch.config.groups import GatewaySettings

#: The quotas by name, that of requests included.
REQUESTS, OPEN_TASKS, STORED_BYTES, DEAD_LETTERS = QUOTAS = ("requests", "open-tasks", "stored-bytes", "dead-letters")

#: Seconds after which tasks may have ended, and after which an operator may have dealt with dead letters.
_TASKS_RETRY, _DEAD_LETTERS_RETRY = 5, 60

#: Room for this many tasks, or bytes, and for a quarter of the quota: all processes together accept less in a second.
FAR, FAR_BYTES = 1_000, 8_388_608


class Holdings(Protocol):
    """What a principal's tasks hold; implemented by `dispatch.store.usage.Held`."""

    @property
    def open(self) -> int:
        """Tasks that have not ended."""

    @property
    def dead(self) -> int:
        """Dead letters."""

    @property
    def bytes(self) -> int:
        """Bytes of stored messages."""


class Limit(NamedTuple):
    """One quota and how much of it is used."""

    name: str  #: in problems, headers and metrics
    most: int
    used: int
    retry_after: int  #: seconds
    unit: str = ""  #: of the header's policy; tasks otherwise

    @property
    def far(self) -> bool:
        """Whether it can't be used up within a second."""
        return self.most - self.used > max(self.most // 4, FAR_BYTES if self.unit else FAR)

    @property
    def policy(self) -> str:
        """Its item of ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10)."""
        return f'"{self.name}";q={self.most}' + (f';qu="{self.unit}"' if self.unit else "")

    @property
    def left(self) -> str:
        """Its item of ``RateLimit``."""
        return f'"{self.name}";r={max(0, self.most - self.used)}'


def limits(held: Holdings, settings: GatewaySettings) -> list[Limit]:
    """The quotas that are set."""
    every = (
        Limit(OPEN_TASKS, settings.quota_open_tasks, held.open, _TASKS_RETRY),
        Limit(STORED_BYTES, settings.quota_stored_bytes, held.bytes, _TASKS_RETRY, "content-bytes"),
        Limit(DEAD_LETTERS, settings.quota_dead_letters, held.dead, _DEAD_LETTERS_RETRY),
    )
    return [limit for limit in every if limit.most]


def used_up(quotas: Iterable[Limit]) -> Limit | None:
    """The first quota without room for another task."""
    return next((limit for limit in quotas if limit.used >= limit.most), None)
