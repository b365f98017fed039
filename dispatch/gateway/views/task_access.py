"""Which tasks a principal may read: its own, and with the scope ``tasks:read-all`` those of others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dispatch.config import api_keys, type_scopes
from dispatch.gateway.http import auth, context
from dispatch.gateway.http.problems import Problem
from dispatch.protocol import ids
from dispatch.protocol.record import Record

#: In a query, in place of a principal.
EVERYBODY = "*"


def find(read: Callable[[str], Record | None], task_id: str, result_ttl: float) -> Record:
    """A task that the principal of the current request may read; one that it may not read is not found.

    What goes on for longer than the request (a long poll, a stream) is then bound to the scope by which it may read the task.

    Args:
        read: finds a record.
        task_id: as in the path.
        result_ttl: seconds for which a record is retained after its end.

    Raises:
        Problem: 404, 410.
    """
    request, principal = context.current(), context.principal()
    request.task_id = task_id if ids.is_task_id(task_id) else None
    record = read(task_id) if ids.is_task_id(task_id) else None
    if record is not None and record.principal == principal.id:
        return record
    if record is not None and api_keys.TASKS_READ_ALL in principal.scopes:
        request.scope = api_keys.TASKS_READ_ALL
        return record
    raise _missing(record, task_id, result_ttl)


def _missing(record: Record | None, task_id: str, result_ttl: float) -> Problem:
    issued_at = ids.issued_at(task_id)
    expired = record is None and issued_at is not None and issued_at < time.time() - result_ttl
    return Problem("task-expired" if expired else "task-not-found")


def find_own(read: Callable[[str], Record | None], task_id: str, result_ttl: float) -> Record:
    """The principal's own task, of a type that its scopes cover; one of others that it may read and no more is not found.

    Args:
        read: finds a record.
        task_id: as in the path.
        result_ttl: seconds for which a record is retained after its end.

    Raises:
        Problem: 403, 404, 410.
    """
    record, principal = find(read, task_id, result_ttl), context.principal()
    if record.principal != principal.id:
        raise Problem("task-not-found")
    if not type_scopes.permits_type(principal.scopes, api_keys.TASKS_WRITE, record.type):
        raise auth.insufficient(f"{api_keys.TASKS_WRITE}:{record.type}")
    return record


def find_controlled(read: Callable[[str], Record | None], task_id: str, result_ttl: float) -> Record:
    """A task that the principal of the current request may cancel: its own, or with the scope ``tasks:control`` any.

    Args:
        read: finds a record.
        task_id: as in the path.
        result_ttl: seconds for which a record is retained after its end.

    Raises:
        Problem: 403, 404, 410.
    """
    request, principal = context.current(), context.principal()
    request.task_id = task_id if ids.is_task_id(task_id) else None
    record = read(task_id) if ids.is_task_id(task_id) else None
    if record is not None and api_keys.TASKS_CONTROL in principal.scopes:
        return record
    if record is not None and record.principal == principal.id:
        if not type_scopes.permits_type(principal.scopes, api_keys.TASKS_WRITE, record.type):
            raise auth.insufficient(f"{api_keys.TASKS_WRITE}:{record.type}")
        return record
    raise _missing(record, task_id, result_ttl)


def shown(record: Record) -> dict[str, Any]:
    """A task as JSON, with its principal where that is another one than the request's."""
    body = context.task_json(record)
    return body if record.principal == context.principal().id else {**body, "principal": record.principal}


def whose(asked: str | None) -> str | None:
    """The principal whose tasks a list shows; None for those of all principals.

    Args:
        asked: the query's; None for the request's own principal.

    Raises:
        Problem: 403, the scope does not permit it.
    """
    principal = context.principal()
    if asked in (None, principal.id):
        return principal.id
    if api_keys.TASKS_READ_ALL not in principal.scopes:
        raise auth.insufficient(api_keys.TASKS_READ_ALL)
    return None if asked == EVERYBODY else asked
