"""``/metrics``: aggregated over the processes of this gateway."""

from __future__ import annotations

from collections.abc import Iterable

import flask
from flask import Response

from dispatch.control import signalling
from dispatch.gateway.http import auth, long_poll
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.server import connections, protocol_errors, unread_body
from dispatch.submission import quotas
from dispatch.telemetry import metrics


class MetricViews:
    """For Prometheus. No authentication, as for the health checks: it exposes no task, client or secret.

    Args:
        types: task types with a label value of their own.
    """

    def __init__(self, types: Iterable[str]) -> None:
        metrics.register_types(types)
        for instrument in (metrics.CONFIRM, metrics.KEY_FILE_FAILING, metrics.AUDIT_LOST):
            instrument.initialise()
        for reason in auth.REASONS:
            metrics.HTTP_UNAUTHENTICATED.initialise(reason)
        for status in protocol_errors.STATUSES:
            metrics.HTTP_REJECTED.initialise(status)
        for reason in connections.REASONS:
            metrics.HTTP_CUT.initialise(reason)
        for kind in long_poll.KINDS:
            metrics.HTTP_WAITING.set(0, kind)  # of the process that had this slot before
        for place in (long_poll.WaitPlace.ROOM, long_poll.WaitPlace.SHARE):
            metrics.HTTP_WAITS_REFUSED.initialise(place)
        for outcome in unread_body.OUTCOMES:
            metrics.HTTP_UNREAD_BODIES.initialise(outcome)
        for quota in quotas.QUOTAS:
            metrics.QUOTA_REFUSALS.initialise(quota)
        for name in types:
            metrics.ACCEPTED.initialise(name)
            for outcome in signalling.OUTCOMES:
                metrics.SIGNALS.initialise(name, outcome)

    @operation(
        Operation(
            "GET", "/metrics", "scrape", "Health", "The metrics, for Prometheus",
            (ResponseSpec(200, "Every metric.", str, media_type="text/plain"),),
            description="OpenMetrics if `Accept` prefers it. Reference: docs/reference/metrics.md.",
        )
    )  # fmt: skip
    def scrape(self) -> Response:
        """Every metric."""
        body, content_type = metrics.render(flask.request.headers.get("Accept"))
        return Response(body, content_type=content_type, headers={"Cache-Control": "no-store"})
