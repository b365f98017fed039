"""The request quota of each principal: fairness between clients, across the processes of the gateway.

Counted in Redis, by its clock. Far from a quota a process counts some of a principal's requests by itself, and has the next
one count them in Redis: one command for many requests. While Redis does not respond, no request is rejected: the quota protects
other clients, not the system; the depth guard and the broker do that.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from dispatch.config.groups import GatewaySettings
from dispatch.errors import StoreError
from dispatch.gateway.http.context import Charge
from dispatch.gateway.http.problems import Problem
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle
from dispatch.store.usage import LATELY
from dispatch.submission.quotas import FAR, REQUESTS
from dispatch.telemetry import metrics

#: Requests of a principal that a process counts by itself at most, and for how many seconds: less than what is left far from
#: the quota, whatever the number of processes. A process that is killed takes them with it.
OWN, OWN_SECONDS = 32, 0.1


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


class Counting:
    """A request that is counted with another wait of its operation: `dispatch.gateway.http.context.Charge`.

    Args:
        quota: takes the answer.
        principal: whose request it is.
        reads: it may still be refused.
    """

    __slots__ = ("_principal", "_quota", "_reads", "headers", "sent")

    def __init__(self, quota: Quota, principal: str, *, reads: bool) -> None:
        self._quota, self._principal, self._reads = quota, principal, reads
        self.headers: Mapping[str, str] = {}
        self.sent = False

    def command(self) -> RedisCommand:
        """Counts it, with those that its process has counted until now; an operation may end before it is sent."""
        return self._quota.command(self._principal)

    def answered(self, answer: Any) -> None:
        """Take the answer; raises `Problem` where the request is refused."""
        share = self._quota.share(self._principal, answer)
        self.headers = share.headers()
        if self._reads:
            refuse(share)


@dataclasses.dataclass(slots=True)
class Counted:
    """A request that is counted already: a `dispatch.gateway.http.context.Charge` with nothing left to do."""

    headers: Mapping[str, str]
    sent: bool = True

    def command(self) -> RedisCommand:
        """Never called: there is none."""
        raise NotImplementedError

    def answered(self, answer: Any) -> None:
        """Never called: there is no command."""


@dataclasses.dataclass(slots=True)
class _Known:
    """What a process knows of a principal's quota."""

    at: float = -LATELY  #: when Redis has answered, by `time.monotonic`
    left: int = 0  #: requests that could be sent then
    used: float = 0.0  #: seconds until it was full again
    own: int = 0  #: requests since that Redis has not counted


class Quota:
    """Counts requests. Thread-safe.

    Args:
        redis: the process's handle.
        settings: ``rate_limit`` requests within ``rate_window`` seconds; 0 is no limit.
    """

    def __init__(self, redis: RedisHandle, settings: GatewaySettings) -> None:
        self._redis = redis
        self._limit, self._window = settings.rate_limit, settings.rate_window
        self._known: dict[str, _Known] = {}  # by principal
        self._lock = threading.Lock()

    def spend(self, principal: str) -> Mapping[str, str]:
        """Count a request.

        Args:
            principal: of the request.

        Returns:
            Headers of its response.

        Raises:
            Problem: ``quota-exceeded``.
        """
        if not self._limit:
            return {}
        try:
            (answer,) = self._redis.run(self.command(principal))
        except StoreError:
            return {}
        share = self.share(principal, answer)
        refuse(share)
        return share.headers()

    def charge(self, principal: str, *, reads: bool) -> Charge | None:
        """Count a request with another wait of its operation, where that can be, or without any.

        Far from the quota, by what this process knows and all processes together can use up within a second, a request is carried
        out whatever the answer is.

        Args:
            principal: of the request.
            reads: it changes nothing, and may be refused after it was carried out.

        Returns:
            What counts it, or has; None where it has to be counted first.
        """
        if not self._limit:
            return None
        known, now = self._known.get(principal) or _Known(), time.monotonic()
        far = now - known.at < LATELY and known.left > max(self._limit // 4, FAR)
        if far and now - known.at < OWN_SECONDS and (share := self._own(known, now)):
            return Counted(share.headers())
        return Counting(self, principal, reads=reads) if reads or far else None

    def share(self, principal: str, answer: Any) -> Share:
        """The state of a quota by the answer of the script."""
        share = Share(self._limit, self._window, int(answer[1]) / 1_000, bool(answer[0]))
        with self._lock:
            known = self._known.setdefault(principal, _Known())
            known.at, known.left, known.used = time.monotonic(), share.left, share.used
        return share

    def command(self, principal: str) -> RedisCommand:
        """Counts a request in Redis, and those before it that only this process has counted: to be sent, or they are lost."""
        with self._lock:
            known = self._known.setdefault(principal, _Known())
            own, known.own = known.own, 0
        key, window = self._redis.keys.rate(principal), int(self._window * 1_000)
        return self._redis.script("spend_quota", [key], self._limit, window, own)

    def _own(self, known: _Known, now: float) -> Share | None:
        """Count a request in this process; None where Redis has to."""
        with self._lock:
            if known.own >= OWN:
                return None
            known.own += 1
            used = max(0.0, known.used - (now - known.at)) + known.own * self._window / self._limit
        return Share(self._limit, self._window, used, taken=True)


def refuse(share: Share) -> None:
    """Refuse a request that was beyond the quota.

    Raises:
        Problem: ``quota-exceeded``.
    """
    if not share.taken:
        metrics.QUOTA_REFUSALS.inc(REQUESTS)
        raise Problem("quota-exceeded", retry_after=share.retry_after, headers=share.headers(), quota=REQUESTS)
