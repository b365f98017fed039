"""The audit entries of requests: each audited operation, and each request that lacked its scope."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flask import Response

from dispatch.gateway.http.context import Principal, RequestContext, current
from dispatch.gateway.http.reply import Reply
from dispatch.protocol.audit import OK, AuditEntry

#: Seconds in which requests that change nothing have one entry for each principal, verb and reason. They need no effort of a
#: client: otherwise one API key, with rights or without, could push everything else out of the log.
REFUSAL_EVERY = 60.0

_NO_SCOPE = "insufficient-scope"

#: Kinds of refusals that are distinguished at a time.
_MOST = 10_000


class Refusals:
    """Thins out refusals of the same kind. Thread-safe.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}

    def count(self, principal: str, verb: str, reason: str) -> int | None:
        """Count a refusal.

        Returns:
            How many there were since the last one that was recorded, this one included; None when it is not to be recorded.
        """
        now, kind = self._clock(), (principal, verb, reason)
        with self._lock:
            if len(self._seen) >= _MOST:
                self._seen.clear()
            until, suppressed = self._seen.get(kind, (now, 0))
            due = now >= until
            self._seen[kind] = (now + REFUSAL_EVERY, 0) if due else (until, suppressed + 1)
        return suppressed + 1 if due else None


class AuditTrail:
    """Records requests in the audit log.

    Args:
        add: see `dispatch.store.audit.AuditLog.add`.
    """

    def __init__(self, add: Callable[[AuditEntry], object]) -> None:
        self._add = add
        self._refusals = Refusals()

    def finish(self, response: Response | Reply) -> None:
        """Runs after every request, failures included."""
        context = current()
        if context.principal is None:
            return
        if not context.audited and context.problem != _NO_SCOPE:
            return
        # A 5xx may have changed something.
        idle = context.problem if 400 <= response.status_code < 500 else context.idle
        times = self._refusals.count(context.principal.id, context.operation, idle) if idle else 1
        if times is not None:
            more = {"refused": times} if times > 1 else {}
            self._add(_entry(context, context.principal, response.status_code, **more))


def _entry(context: RequestContext, principal: Principal, status: int, **details: int) -> AuditEntry:
    return AuditEntry(
        principal=principal.id,
        verb=context.operation,
        target=context.target or " ".join(context.arguments.values()),
        result=OK if status < 400 else context.problem or str(status),
        phase=context.phase if status < 400 else "",
        key=principal.key,
        client=context.environ.get("REMOTE_ADDR") or "",
        request_id=context.request_id,
        details={**context.details, **details},
    )
