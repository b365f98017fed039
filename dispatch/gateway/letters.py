"""The operator's verbs over dead letters, in the shape the HTTP layer asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dispatch.deadletters.service import BulkRedriveJob, DeadLetterService, without_secrets
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.record import Record
from dispatch.store.tasks import Page, TaskStore
from dispatch.tasktypes.registry import TaskType


class LetterDesk:
    """`dispatch.deadletters.service` for the HTTP layer.

    Args:
        store: reads records.
        verbs: redrive and discard.
    """

    def __init__(self, store: TaskStore, verbs: DeadLetterService) -> None:
        self._store = store
        self._verbs = verbs

    def get(self, task_id: str) -> Record:
        """A record whose letter lies in the DLQ; raises NoSuchDeadLetter."""
        return self._verbs.find(task_id)

    def list(self, *, type: str | None, error_type: str | None, limit: int, cursor: str | None) -> Page:
        """A page of dead letters, newest first."""
        return self._store.dead_letters(type=type, error_type=error_type, limit=limit, cursor=cursor)

    def redrive(self, task_id: str, *, by: str) -> Record:
        """Send one again."""
        return self._verbs.redrive(task_id, by=by)

    def discard(self, task_id: str, *, by: str) -> None:
        """Drop one."""
        self._verbs.discard(task_id, by=by)

    def count(self, *, type: str | None, error_type: str | None, limit: int) -> int:
        """How many match, at most the limit."""
        return self._verbs.count(DeadLetterFilter(type, error_type), most=limit)

    def request_bulk(
        self, *, type: str | None, error_type: str | None, limit: int, rate_per_second: float, by: str
    ) -> int:
        """Have the workers send many again; how many match now."""
        return self._verbs.request(BulkRedriveJob(DeadLetterFilter(type, error_type), limit, rate_per_second, by))


def payload(record: Record, types: Mapping[str, TaskType]) -> Any:
    """What the client sent, from the recorded message, without its secrets; None when it can't be read (poison).

    Args:
        record: a dead letter's.
        types: the task types; what is secret in the payload of another type is not known.
    """
    if record.message is None:
        return None
    try:
        return without_secrets(json.loads(record.message.body), types.get(record.type))[0][0]
    except (ValueError, LookupError, TypeError):
        return None
