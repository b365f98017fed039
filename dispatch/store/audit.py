"""The audit log: a stream in Redis, bounded in length and age, and a line in the log of the process for each entry.

A service writes the line first and always; the entry in Redis is what `GET /v1/audit` shows. When Redis does not take an
entry the verb stands: operators' verbs mend a system whose Redis is full or failing, and lines can be kept out of their
reach. A command, whose stderr a person reads, writes the line when Redis has not taken the entry.

Crash window: a process that dies between the verb and its entry leaves the verb without one; the task's hops still name
who did it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dispatch.config.groups import AuditSettings
from dispatch.errors import StoreError
from dispatch.protocol.audit import Audited, AuditEntry
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import logger, metrics

log = logger("dispatch.audit")

#: Entries read for one page at most: a rare filter ends the page early and hands on a cursor.
SCAN_LIMIT = 2_000
_BATCH = 200

#: A cursor is the id of the last entry that was read.
_CURSOR = re.compile(r"\d{1,20}-\d{1,20}")


@dataclasses.dataclass(frozen=True, slots=True)
class AuditPage:
    """Part of the audit log."""

    items: list[Audited]
    next: str | None  #: None at the end


class AuditLog:
    """Writes and reads the audit log. Thread-safe.

    Args:
        redis: the process's handle.
        settings: how long the log may be, and how old.
        lines: whether each entry is a line in the log, too; otherwise only one that Redis does not take.
    """

    def __init__(self, redis: RedisHandle, settings: AuditSettings, *, lines: bool = True) -> None:
        self._redis = redis
        self._lines = lines
        self._longest = settings.audit_entries
        self._age = int(settings.audit_ttl * 1_000)

    def add(self, entry: AuditEntry) -> bool:
        """Record an entry; never raises.

        Returns:
            Whether Redis has taken it; if not, the line in the log is there in any case.
        """
        if self._lines:
            _log(entry)
        try:
            self._redis.run(
                self._redis.script("audit", [self._redis.keys.audit], self._longest, self._age, *entry.fields())
            )
        except StoreError as exc:
            if not self._lines:
                _log(entry)
            metrics.AUDIT_LOST.inc()
            log.warning("audit entry not stored", reason=str(exc), verb=entry.verb, request_id=entry.request_id or None)
            return False
        return True

    def page(
        self, *, principal: str | None = None, verb: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> AuditPage:
        """Read the log from new to old.

        Args:
            principal: only of this one.
            verb: only of this one.
            limit: entries on a page.
            cursor: of the page before.

        Returns:
            A page; with a rare filter it may hold fewer entries than `limit` and still have a next one.

        Raises:
            ValueError: the cursor is not one of ours.
            StoreUnavailable: Redis did not answer.
        """
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError("the cursor is not one of ours")
        items: list[Audited] = []
        last = cursor
        for _ in range(SCAN_LIMIT // _BATCH):
            found = list(self._older_than(last))
            for one in found:
                last = one.id
                if principal in (None, one.entry.principal) and verb in (None, one.entry.verb):
                    items.append(one)
                    if len(items) == limit:
                        return AuditPage(items, last)
            if len(found) < _BATCH:
                return AuditPage(items, None)
        return AuditPage(items, last)

    def _older_than(self, last: str | None) -> Iterator[Audited]:
        start = "+" if last is None else f"({last}"
        for entry_id, fields in self._redis.run(("XREVRANGE", self._redis.keys.audit, start, "-", "COUNT", _BATCH))[0]:
            yield Audited(entry_id, AuditEntry.parse(_mapping(fields)))


def _log(entry: AuditEntry) -> None:
    given = {name: text for name, text in entry.texts().items() if text}
    log.info("audit", **given, **({"details": dict(entry.details)} if entry.details else {}))


def _mapping(fields: Any) -> Mapping[str, str]:
    """Fields of an entry: redis-py makes a dict of them, but in a cluster's answer to a raw command a list may stay."""
    return fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
