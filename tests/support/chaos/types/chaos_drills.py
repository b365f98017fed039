"""The chaos harness's own task types. `support.chaos.checkout` copies this file into the ``tasks/`` of the system that is broken.

Each run posts one effect to the ledger, under the task's idempotency key and the number of the step, with a note of what the handler saw.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pydantic import Field

from dispatch.errors import PermanentError
from dispatch.tasktypes import Context, Payload, Wait, task
from tasks import upstream
from tasks.waiting import stopped

PEER = "the ledger"


class Effect(Payload):
    """Where the effect lands."""

    label: str = Field(max_length=200, examples=["client1-1"])
    url: str = Field(max_length=500, description="The ledger's.", examples=["http://127.0.0.1:1/effects"])
    wish: dict[str, Any] = Field({}, description="How the ledger answers.")


class Walk(Effect):
    """Steps with waits between them."""

    steps: int = Field(0, ge=0, le=10, description="Waits before the last step.")
    seconds: float = Field(1, ge=1, le=60, allow_inf_nan=False, description="Of each wait.")
    until: list[str] = Field([], max_length=3, description="Signals that end a wait early.")
    callback_after: float = Field(
        0, ge=0, le=60, allow_inf_nan=False, description="The ledger calls back then; 0 is not."
    )
    children: int = Field(0, ge=0, le=5, description="Tasks that the first step submits.")
    robot: str = Field("", max_length=40, description="Of which one task runs at a time.")


class Trail(Payload):
    """The steps that were taken."""

    steps: list[int]


@task("chaos.walk", payload=Walk, state=Trail, concurrency_key=lambda order: order.robot or None)
def walk(order: Walk, ctx: Context) -> dict[str, Any] | Wait:
    """Take a step, then wait or end."""
    if ctx.cancelled():
        raise stopped()
    trail = ctx.state.steps if ctx.state is not None else []
    if trail != list(range(ctx.step)):
        raise PermanentError(f"step {ctx.step} has the state {trail}", type="state-lost")
    for number in range(order.children if ctx.step == 0 else 0):
        _submit_child(order, ctx, number)
    at = time.time()
    signals = [[signal.name, signal.payload.get("id")] for signal in ctx.signals] if order.until else []
    call: dict[str, Any] = {}
    if order.callback_after and ctx.step < order.steps:
        call = {
            "callback": {"url": ctx.callback_url(order.until[0]), "after": order.callback_after, "id": f"c{ctx.step}"}
        }
    _post(order, ctx, f"{ctx.idempotency_key}/{ctx.step}", {"signals": signals, "readAt": at}, **call)
    if ctx.step < order.steps:
        return Wait(order.seconds, state=Trail(steps=[*trail, ctx.step]), until=tuple(order.until))
    return {"steps": ctx.step}


@task("chaos.narrow", payload=Effect, max_running=2)
def narrow(order: Effect, ctx: Context) -> dict[str, Any]:
    """One of two at a time."""
    if ctx.cancelled():
        raise stopped()
    _post(order, ctx, f"{ctx.idempotency_key}/0", {})
    return {}


@task("chaos.paced", payload=Effect, rate="2/s")
def paced(order: Effect, ctx: Context) -> dict[str, Any]:
    """Two begin in any second, of all workers together."""
    return narrow(order, ctx)


@task("chaos.undone", payload=Effect, undoes=True)
def undone(order: Effect, ctx: Context) -> dict[str, Any]:
    """Begin something elsewhere, which a cancellation undoes."""
    if ctx.cancelled():
        _post(Effect(label=order.label, url=order.url), ctx, f"{ctx.idempotency_key}/undo", {})
        raise stopped()
    _post(order, ctx, f"{ctx.idempotency_key}/0", {})
    return {}


def _submit_child(order: Walk, ctx: Context, number: int) -> None:
    label = f"{order.label}/c{number}"
    payload = {"method": "POST", "url": order.url, "json": {"label": label}, "timeoutSeconds": 10}
    ctx.submit("http.request", payload, key=f"c{number}", labels={"child": f"{ctx.cycle}.{number}"})


def _post(order: Effect, ctx: Context, key: str, note: dict[str, Any], **more: Any) -> None:
    body = {**order.wish, "label": order.label, "note": {"step": ctx.step, "attempt": ctx.attempt, **note}, **more}
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    with upstream.client(timeout=10, headers=headers) as http:
        answer = upstream.exchange(http, "POST", order.url, peer=PEER, within=10, content=json.dumps(body).encode())
    if error := upstream.failure(answer, peer=PEER):
        raise error
