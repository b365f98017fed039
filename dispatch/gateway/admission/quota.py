"""The request quota of each principal: fairness between clients, across the processes of the gateway.

Counted in Redis, by its clock. While Redis does not respond, no request is rejected: the quota protects other clients,
not the system; the depth guard and the broker do that.
"""

from __future__ import annotations

import dataclasses
import math

from dispatch.config.groups import GatewaySettings
from dispatch.errors import StoreError
from dispatch.gateway.http.problems import Problem
from dispatch.store.scripts import RedisHandle


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """The state of a principal's quota."""

    limit: int  #: requests in a window
    window: float  #: seconds
    used: float  #: seconds until the quota is full again
    taken: bool  #: whether this request was within the quota

    @property
    def left(self) -> int:
        """Requests that may be sent immediately."""
        return max(0, math.floor(self.limit - self.used * self.limit / self.window + 1e-6))

    @property
    def retry_after(self) -> int:
        """Whole seconds until the quota admits one more."""
        return max(1, math.ceil(self.used - self.window + self.window / self.limit))

    def headers(self) -> dict[str, str]:
        """``RateLimit-Policy`` and ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "RateLimit-Policy": f'"principal";q={self.limit};w={math.ceil(self.window)}',
            "RateLimit": f'"principal";r={self.left};t={math.ceil(self.used)}',
        }


class Quota:
    """Counts requests. Thread-safe.

    Args:
        redis: the process's handle.
        settings: ``rate_limit`` requests within ``rate_window`` seconds; 0 is no limit.
    """

    def __init__(self, redis: RedisHandle, settings: GatewaySettings) -> None:
        self._redis = redis
        self._limit, self._window = settings.rate_limit, settings.rate_window

    def spend(self, principal: str) -> dict[str, str]:
        """Count a request.

        Args:
            principal: of the request.

        Returns:
            Headers of its response.

        Raises:
            Problem: ``quota-exceeded``.
        """
        share = self._share(principal) if self._limit else None
        if share is None:
            return {}
        if not share.taken:
            raise Problem("quota-exceeded", retry_after=share.retry_after, headers=share.headers())
        return share.headers()

    def _share(self, principal: str) -> Share | None:
        key, window = self._redis.keys.rate(principal), int(self._window * 1_000)
        try:
            (answer,) = self._redis.run(self._redis.script("spend_quota", [key], self._limit, window))
        except StoreError:
            return None
        return Share(self._limit, self._window, int(answer[1]) / 1_000, bool(answer[0]))
