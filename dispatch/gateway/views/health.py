"""``/livez`` and ``/readyz``: is the process there, can it accept tasks."""

from __future__ import annotations

from flask import Response

from dispatch.gateway.admission.readiness import _SLUGS, Readiness
from dispatch.gateway.contract import models
from dispatch.gateway.http.context import json_response
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem


class HealthViews:
    """For load balancers and orchestrators; open to everybody.

    Args:
        readiness: what `/readyz` asks.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @operation(
        Operation(
            "GET", "/livez", "isAlive", "Health", "Whether the process answers; touches nothing",
            (ResponseSpec(200, "It does.", models.Alive),),
        )
    )  # fmt: skip
    def livez(self) -> Response:
        """The process answers."""
        return json_response({"status": "ok"})

    @operation(
        Operation(
            "GET", "/readyz", "isReady", "Health", "Whether tasks can be accepted",
            (ResponseSpec(200, "They can.", models.Ready),),
            description="Asks RabbitMQ and Redis, 500 ms each, and remembers the verdict for a second. "
            "503 names what is down in `checks`.",
            problems=("broker-unavailable", "store-unavailable"),
        )
    )  # fmt: skip
    def readyz(self) -> Response:
        """RabbitMQ and Redis answer, and Redis keeps what it is given."""
        verdict = self._readiness.verdict()
        checks = {name: {"ok": wrong is None, "detail": wrong or "ok"} for name, wrong in verdict.items()}
        down = [name for name in _SLUGS if verdict.get(name) is not None]
        if down:
            detail = "; ".join(f"{name}: {verdict[name]}" for name in down)
            raise Problem(_SLUGS[down[0]], detail, retry_after=1, checks=checks)
        return json_response({"status": "ok", "checks": checks})
