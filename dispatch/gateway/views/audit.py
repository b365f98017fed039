"""``/v1/audit``: what operators did, for those who watch operators."""

from __future__ import annotations

from dispatch.config import api_keys as keys
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.store.audit import AuditLog


class AuditViews:
    """The operation on the audit log.

    Args:
        log: the audit log.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    @operation(
        Operation(
            "GET", "/v1/audit", "listAudit", "Audit", "List what operators did, newest first",
            (ResponseSpec(200, "A page.", response_models.AuditListModel, ("Cache-Control",)),),
            scope=keys.AUDIT_READ,
            description="Operators' verbs over HTTP and with `celery dlq`, and requests that lacked a scope. A page may have fewer "
            "items than `limit` although `next` is not null: with a filter.",
            query=request_models.AuditQuery,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """A page of the audit log."""
        query = validation.read_query(request_models.AuditQuery)
        page = validation.page(
            lambda: self._log.page(principal=query.principal, verb=query.verb, limit=query.limit, cursor=query.cursor)
        )
        return json_reply({"items": [one.to_json() for one in page.items], "next": page.next})
