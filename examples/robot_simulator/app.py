"""HTTP: the vendor's endpoints and ``/control``."""

from __future__ import annotations

import hmac
import math
import socket
import time
from typing import Annotated, Any, TypeVar

import pydantic
from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from pydantic import Field
from werkzeug.exceptions import HTTPException

from examples.robot_simulator.callbacks import Callbacks
from examples.robot_simulator.faults import FAULTS, Fault, FaultJob, FaultQueue, by_serial
from examples.robot_simulator.world import (
    ACTIVE,
    PREFIX,
    Config,
    OrderKeyReused,
    RobotBusy,
    SimulatedCommand,
    World,
)

#: Return type of the views.
Reply = Response | tuple[Response, int]

_API = "/openapi/v1"

#: `Fault.match` by view.
_ENDPOINTS = {
    "vendor.token": "token",
    "vendor.order": "orders",
    "vendor.command": "commands",
    "vendor.cancel": "commands",
    "vendor.robots": "robots",
    "vendor.status": "robots",
}

_M = TypeVar("_M", bound=pydantic.BaseModel)

vendor = Blueprint("vendor", __name__)
control = Blueprint("control", __name__, url_prefix="/control")


class _Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    areas: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    mode: str = "vacuum"
    passes: int = Field(1, ge=1, le=3)
    callback_url: str | None = Field(None, alias="callbackUrl", max_length=2_048, pattern=r"^https?://[^\s]+$")


class RequestRefused(Exception):
    """The request is rejected; the response is an error."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


def create_app(config: Config | None = None) -> Flask:
    """Assemble the simulator.

    Args:
        config: behaviour of the vendor.

    Returns:
        A WSGI application with its own `World`.
    """
    app = Flask(__name__)
    world = app.extensions["world"] = World(config or Config())
    app.extensions["callbacks"] = Callbacks(world)
    app.extensions["faults"] = FaultQueue[Fault]()
    app.register_blueprint(vendor)
    app.register_blueprint(control)
    app.register_error_handler(RequestRefused, _refusal)
    app.register_error_handler(HTTPException, _http_error)
    app.add_url_rule("/healthz", view_func=lambda: jsonify(status="ok"), endpoint="healthz")
    return app


def _world() -> World:
    world: World = current_app.extensions["world"]
    return world


def _callbacks() -> Callbacks:
    callbacks: Callbacks = current_app.extensions["callbacks"]
    return callbacks


def _faults() -> FaultQueue[Fault]:
    faults: FaultQueue[Fault] = current_app.extensions["faults"]
    return faults


def _refusal(error: RequestRefused) -> Reply:
    answer = jsonify(error={"code": error.code, "message": str(error)})
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer, error.status


def _http_error(error: HTTPException) -> Reply:
    return jsonify(
        error={"code": error.name.upper().replace(" ", "_"), "message": error.description}
    ), error.code or 500


def _body(model: type[_M]) -> _M:
    try:
        return model.model_validate_json(request.get_data())
    except pydantic.ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
        raise RequestRefused(400, "INVALID_ARGUMENT", problems) from exc


# --- before and after each of the vendor's views -------------------------------------------------
@vendor.before_request
def _authorize() -> None:
    if not request.path.startswith(_API):
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not _world().is_token(token):
        raise RequestRefused(401, "UNAUTHENTICATED", "the access token is missing, wrong or expired")


@vendor.before_request
def _count() -> None:
    _world().requested((request.endpoint or "").rpartition(".")[2])
    if request.endpoint == "vendor.order":
        g.nth = _world().received(request.headers.get("Idempotency-Key", "-"))


@vendor.before_request
def _inject() -> Response | None:
    robot = (request.view_args or {}).get("robot")
    endpoint = _ENDPOINTS.get(request.endpoint or "")
    fault = _faults().take(lambda rule: rule.match in {"any", endpoint} and rule.robot in {None, robot})
    if fault is None and endpoint == "orders":
        fault = by_serial(FAULTS, str(robot), g.nth)
    return None if fault is None else _apply(fault)


def _apply(fault: Fault) -> Response | None:
    time.sleep(fault.latency_seconds)
    if fault.drop == "before":
        _cut()
        return Response(status=500)  # never received; the view does not run
    g.cut = fault.drop == "after"
    if fault.status is not None:
        answer = jsonify(error={"code": f"SIMULATED_{fault.status}", "message": "simulated failure"})
        answer.status_code = fault.status
    elif fault.garbled:
        answer = Response('{"name": "robots/', content_type="application/json")
    else:
        return None
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = str(fault.retry_after)
    return answer


@vendor.after_request
def _drop(answer: Response) -> Response:
    if g.get("cut", False):
        _cut()
    return answer


def _cut() -> None:
    """Shut the connection down; the server's write of the response fails silently."""
    connection: socket.socket | None = request.environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)


# --- the vendor's endpoints ----------------------------------------------------------------------
@vendor.post("/oauth/token")
def token() -> Reply:
    """Grant a token for client credentials (RFC 6749, 4.4)."""
    config = _world().config
    if request.form.get("grant_type") != "client_credentials":
        return jsonify(error="unsupported_grant_type"), 400
    credentials = f"{request.form.get('client_id')}:{request.form.get('client_secret')}"
    if not hmac.compare_digest(credentials.encode(), f"{config.client_id}:{config.client_secret}".encode()):
        return jsonify(error="invalid_client"), 401
    return jsonify(access_token=_world().new_token(), token_type="Bearer", expires_in=config.token_seconds)  # noqa: S106


@vendor.get(f"{_API}/robots")
def robots() -> Reply:
    """List the fleet."""
    return jsonify(robots=[_world().status(robot) for robot in _world().robots()])


@vendor.get(f"{_API}/robots/<robot>/status")
def status(robot: str) -> Reply:
    """Show a robot's battery and state."""
    return jsonify(_world().status(_known(robot)))


@vendor.post(f"{_API}/robots/<robot>/tasks/temp/withoutSite")
def order(robot: str) -> Reply:
    """Accept a one-off order; the same Idempotency-Key returns the same command."""
    body = _body(_Order)
    key = request.headers.get("Idempotency-Key", "")
    # Where the end is reported is no part of the work: a repeated order may name another URL.
    content = body.model_dump(exclude={"callback_url"})
    try:
        command = _world().order(_known(robot), tuple(body.areas), key, content)
    except OrderKeyReused as exc:
        raise RequestRefused(409, "KEY_REUSED", "this Idempotency-Key belongs to another order") from exc
    except RobotBusy as exc:
        raise RequestRefused(409, "ROBOT_BUSY", str(exc), retry_after=max(1, math.ceil(exc.seconds))) from exc
    view = _world().view(command)
    if body.callback_url and view["state"] in ACTIVE:
        _callbacks().watch(command, body.callback_url)
    return jsonify(view)


@vendor.get(f"{_API}/robots/<robot>/commands/<command_id>")
def command(robot: str, command_id: str) -> Reply:
    """Show a command's state and progress."""
    return _command_response(_world().command(robot, command_id))


@vendor.post(f"{_API}/robots/<robot>/commands/<command_id>/cancel")
def cancel(robot: str, command_id: str) -> Reply:
    """Stop a command; one that has ended is unchanged."""
    command = _world().cancel(robot, command_id)
    if command is not None:
        _callbacks().stopped(command)
    return _command_response(command)


def _known(robot: str) -> str:
    if not robot.startswith(PREFIX):
        raise RequestRefused(404, "ROBOT_NOT_FOUND", f"no robot {robot}")
    return robot


def _command_response(command: SimulatedCommand | None) -> Reply:
    if command is None:
        raise RequestRefused(404, "COMMAND_NOT_FOUND", "no such command")
    return jsonify(_world().view(command))


# --- control -------------------------------------------------------------------------------------
@control.post("/faults")
def add_fault() -> Reply:
    """Add a fault for the next responses."""
    _faults().add(_body(Fault))
    return _list(_faults())


@control.get("/faults")
def list_faults() -> Reply:
    """List the pending faults."""
    return _list(_faults())


@control.delete("/faults")
def clear_faults() -> Reply:
    """Remove all faults."""
    _faults().clear()
    return _list(_faults())


@control.post("/jobs")
def add_job() -> Reply:
    """Add a job for the next orders."""
    _world().jobs.add(_body(FaultJob))
    return _list(_world().jobs)


@control.get("/jobs")
def list_jobs() -> Reply:
    """List the pending jobs."""
    return _list(_world().jobs)


@control.delete("/jobs")
def clear_jobs() -> Reply:
    """Remove all jobs."""
    _world().jobs.clear()
    return _list(_world().jobs)


@control.get("/orders")
def orders() -> Reply:
    """Count orders by Idempotency-Key: requests received, commands created."""
    return jsonify(_world().counts())


@control.get("/counts")
def counts() -> Reply:
    """Count requests by view, robots at work, and callbacks."""
    return jsonify(**_world().totals(), callbacks=_callbacks().counts())


@control.delete("/tokens")
def revoke_tokens() -> Reply:
    """Revoke all tokens."""
    _world().revoke_tokens()
    return jsonify({})


@control.post("/reset")
def reset() -> Reply:
    """Remove all state: tokens, commands, counts, faults and jobs."""
    _world().reset()
    _callbacks().reset()
    _faults().clear()
    return jsonify({})


def _list(queue: FaultQueue[Any]) -> Reply:
    return jsonify([rule.model_dump(by_alias=True, mode="json") for rule in queue.pending()])
