"""The quotas of what a principal's tasks hold: open tasks, bytes of stored messages, dead letters.

They bound what one client can take of the Redis that all share. Checked before a task is accepted, and counted with its
record, so requests in flight at the same time may go beyond a quota by as many tasks. Far from a quota, what the principal's
last acceptance has counted is good for a second: a quota that leaves no such room is read each time. While Redis does not respond, nothing
is refused here: the acceptance fails by itself.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Protocol

from dispatch.config.groups import GatewaySettings
from dispatch.errors import StoreError
from dispatch.gateway.http.problems import Problem
from dispatch.store.usage import Held
from dispatch.submission.quotas import Limit, limits, used_up
from dispatch.telemetry import metrics

#: Seconds between two comparisons of a principal's counts with its records.
MEND_INTERVAL = 10.0

#: Room where there is no quota of tasks.
NO_LIMIT = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a principal may submit a task."""

    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: of the response
    refusal: Problem | None = None
    room: int = NO_LIMIT  #: tasks that fit into the narrowest quota, bytes apart


class Counts(Protocol):
    """Implemented by `dispatch.store.usage.Usage`."""

    def read(self, principal: str) -> Held:
        """What a principal's tasks hold."""

    def lately(self, principal: str) -> Held | None:
        """What they held within the last second, if that is known."""

    def mend(self, principal: str) -> None:
        """Compare the counts with the records."""


class Allowances:
    """Decides by the counts in Redis. Thread-safe.

    Args:
        counts: of all principals.
        settings: the quotas; 0 is no limit.
    """

    def __init__(self, counts: Counts, settings: GatewaySettings) -> None:
        self._counts = counts
        self._settings = settings
        self._mended: dict[str, float] = {}
        self._policy = ", ".join(limit.policy for limit in limits(Held(0, 0, 0), settings))

    def of(self, principal: str) -> Allowance:
        """Whether a principal may submit a task now."""
        if not self._policy:
            return Allowance()
        try:
            quotas = self._quotas(principal)
            if used_up(quotas) is not None and self._mend(principal):
                quotas = limits(self._counts.read(principal), self._settings)
        except StoreError:
            return Allowance()
        shown = {
            "RateLimit-Policy": self._policy,
            "RateLimit": ", ".join([limit.left for limit in quotas]),
        }
        over = used_up(quotas)
        room = min([limit.most - limit.used for limit in quotas if not limit.unit], default=NO_LIMIT)
        return Allowance(shown, _refusal(over) if over is not None else None, room)

    def _quotas(self, principal: str) -> list[Limit]:
        lately = self._counts.lately(principal)
        quotas = [] if lately is None else limits(lately, self._settings)
        return (
            quotas
            if quotas and all(limit.far for limit in quotas)
            else limits(self._counts.read(principal), self._settings)
        )

    def _mend(self, principal: str) -> bool:
        """Before a refusal, but not before each: a client that goes on sending must not cost more than one that stops."""
        now = time.monotonic()
        if now - self._mended.get(principal, -MEND_INTERVAL) < MEND_INTERVAL:
            return False
        self._mended[principal] = now
        self._counts.mend(principal)
        return True


def _refusal(over: Limit) -> Problem:
    metrics.QUOTA_REFUSALS.inc(over.name)
    setting = f"DISPATCH_QUOTA_{over.name.upper().replace('-', '_')}"
    detail = f"The principal's quota of {over.name.replace('-', ' ')} is used up ({setting})."
    return Problem(
        "quota-exceeded", detail, retry_after=over.retry_after, quota=over.name, limit=over.most, used=over.used
    )
