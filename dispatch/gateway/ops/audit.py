"""``/ops/audit``: who did what, when, and what came of it."""

from __future__ import annotations

from typing import Any

from flask import Response

from dispatch.config import api_keys
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import validation
from dispatch.gateway.ops import filtering
from dispatch.gateway.ops.door import ROOT, SIGN_IN, SIGN_OUT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import page
from dispatch.protocol import ids
from dispatch.store.audit import AuditLog

PATH = f"{ROOT}/audit"


class AuditView:
    """The page.

    Args:
        frame: renders it.
        log: the audit log.
        verbs: the operations that it has, for the form.
    """

    def __init__(self, frame: Frame, log: AuditLog, verbs: list[str]) -> None:
        self._frame, self._log, self._verbs = frame, log, sorted({*verbs, SIGN_IN, SIGN_OUT})

    @page("audit", "/audit", api_keys.AUDIT_READ)
    def index(self) -> Response:
        """A page of the log."""
        if (tidied := filtering.tidied(PATH)) is not None:
            return tidied  # type: ignore[return-value]
        found, given = self._frame.part(self._page), filtering.without("cursor")
        return self._frame.page(
            "audit.html",
            found=found,
            given=dict(filtering.given()),
            verbs=self._verbs,
            filtered=filtering.without("cursor", "limit"),
            older=filtering.older(PATH, found.value["next"] if found.value else None),
            newest=filtering.url(PATH, given),
        )

    def _page(self) -> dict[str, Any]:
        query = validation.read_query(request_models.AuditQuery)
        page = validation.page(
            lambda: self._log.page(principal=query.principal, verb=query.verb, limit=query.limit, cursor=query.cursor)
        )
        entries = [{**one.to_json(), "is_task": ids.issued_at(one.entry.target) is not None} for one in page.items]
        return {"items": entries, "next": page.next}
