"""What lists are filtered by, and the API's names for it. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, TypedDict


class TaskFilters(TypedDict, total=False):
    """Which tasks: all that is given must match."""

    status: str | None  #: a `Status`
    state: str | None  #: a `State`
    type: str | None
    error_type: str | None  #: of the last attempt that failed
    request_id: str | None  #: `X-Request-Id` of the submission
    labels: Mapping[str, str] | None
    since: dt.datetime | None  #: accepted at this time or later
    until: dt.datetime | None  #: accepted before this time
    principal: str | None  #: another principal's, or ``*``: needs the scope `tasks:read-all`
    page_size: int | None  #: tasks of one request, 1 to 200


class LetterFilters(TypedDict, total=False):
    """Which dead letters: all that is given must match."""

    type: str | None
    error_type: str | None
    fingerprint: str | None  #: of the error's message, as a group has it


def of_tasks(filters: TaskFilters) -> dict[str, Any]:
    """Parameters of ``GET /v1/tasks``.

    Args:
        filters: which tasks.
    """
    return {
        "status": filters.get("status"),
        "state": filters.get("state"),
        "type": filters.get("type"),
        "errorType": filters.get("error_type"),
        "requestId": filters.get("request_id"),
        "label": [f"{name}={value}" for name, value in (filters.get("labels") or {}).items()],
        "since": filters.get("since"),
        "until": filters.get("until"),
        "principal": filters.get("principal"),
        "limit": filters.get("page_size"),
    }


def of_letters(filters: LetterFilters) -> dict[str, Any]:
    """Parameters of ``GET /v1/dead-letters``, and the filter of a bulk redrive.

    Args:
        filters: which dead letters.
    """
    return {
        "type": filters.get("type"),
        "errorType": filters.get("error_type"),
        "fingerprint": filters.get("fingerprint"),
    }
