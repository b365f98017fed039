"""``/livez`` and ``/readyz``: liveness of the process, readiness to accept tasks."""

from __future__ import annotations

from dispatch.gateway.admission.readiness import SERVERS, SLUGS, Readiness
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply


class HealthViews:
    """For load balancers and orchestrators; no authentication.

    Args:
        readiness: the checks of `/readyz`.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @operation(
        Operation(
            "GET", "/livez", "isAlive", "Health", "Whether the process responds; contacts no server",
            (ResponseSpec(200, "It does.", response_models.AliveModel),),
        )
    )  # fmt: skip
    def livez(self) -> Reply:
        """The process responds."""
        return json_reply({"status": "ok"})

    @operation(
        Operation(
            "GET", "/readyz", "isReady", "Health", "Whether tasks can be accepted",
            (ResponseSpec(200, "They can.", response_models.ReadyModel),),
            description="Checks RabbitMQ and Redis (a write, too), 500 ms each, and caches the results for a second; also the file of API keys, "
            "where there is one. 503: `checks` has the failures, with what kind of reason they have; addresses, users and the servers' own words are in the log. `keysFile` alone does not make a gateway unready: the API "
            "keys that the file held before stay in force.",
            problems=("broker-unavailable", "store-unavailable", "keys-unavailable"),
        )
    )  # fmt: skip
    def readyz(self) -> Reply:
        """RabbitMQ and Redis pass their checks."""
        failures = self._readiness.failures()
        checks = {name: {"ok": failure is None, "detail": failure or "ok"} for name, failure in failures.items()}
        down = [name for name in SLUGS if failures.get(name) is not None]
        if down:
            detail = "; ".join(str(failures[name]) if name in SERVERS else f"{name}: {failures[name]}" for name in down)
            raise Problem(SLUGS[down[0]], detail, retry_after=1, checks=checks)
        return json_reply({"status": "ok", "checks": checks})
