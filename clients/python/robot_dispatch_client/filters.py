"""What lists are filtered by, and the API's names for it. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, TypedDict

from robot_dispatch_client.submissions import moment


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


class JobFilters(TypedDict, total=False):
    """The tasks that a job is for: all that is given must match."""

    type: str | None
    status: str | None  #: a `Status`
    state: str | None  #: a `State`
    error_type: str | None  #: of the last attempt that failed
    fingerprint: str | None  #: of that attempt's error's message, as a group of dead letters has it
    principal: str | None  #: whose tasks; everybody's by default
    labels: Mapping[str, str] | None
    since: dt.datetime | None  #: accepted at this time or later
    until: dt.datetime | None  #: accepted before this time


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


def of_jobs(filters: JobFilters) -> dict[str, Any]:
    """The filter of ``POST /v1/jobs``.

    Args:
        filters: which tasks.
    """
    times = {name: filters.get(name) for name in ("since", "until")}
    given = {
        "type": filters.get("type"),
        "status": filters.get("status"),
        "state": filters.get("state"),
        "errorType": filters.get("error_type"),
        "fingerprint": filters.get("fingerprint"),
        "principal": filters.get("principal"),
        "labels": dict(filters.get("labels") or {}) or None,
        **{name: moment(value) for name, value in times.items() if isinstance(value, dt.datetime)},
    }
    return {name: value for name, value in given.items() if value is not None}
