"""dramatiq behind a Flask endpoint: validate, one SET, a confirmed publish, 202; a long poll that blocks on the result in Redis."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from typing import Any

import dramatiq
import pydantic
import redis
from dramatiq.results import ResultTimeout
from flask import Flask, Response, request

from bench.peers.addresses import DRAMATIQ_QUEUE, REDIS_URL
from bench.peers.body import PeerBody
from bench.peers.dramatiq_tasks import echo

_DAY = 86_400
_JSON = "application/json"

app = Flask(__name__)
store = redis.Redis.from_url(REDIS_URL)


@app.post("/v1/tasks")
def submit() -> Response:
    """Accept a task."""
    try:
        body = PeerBody.model_validate_json(request.get_data())
    except pydantic.ValidationError as exc:
        return Response(exc.json(), 422, mimetype=_JSON)
    task_id = str(uuid.uuid4())
    store.set(f"task:{task_id}", json.dumps({"status": "PENDING", "createdAt": time.time()}), ex=_DAY, nx=True)
    message = echo.message(payload=body.payload.model_dump()).copy(message_id=task_id)
    echo.broker.enqueue(message)
    return _answer({"taskId": task_id, "status": "PENDING"}, 202)


@app.get("/v1/tasks/<task_id>")
def status(task_id: str) -> Response:
    """A task's state; `Prefer: wait=5` waits for its end."""
    seconds = int(request.headers.get("Prefer", "wait=0").removeprefix("wait="))
    message: Any = dramatiq.Message(DRAMATIQ_QUEUE, "echo", (), {}, {}, message_id=task_id)
    try:
        result = message.get_result(block=True, timeout=max(1, seconds * 1_000))
    except ResultTimeout:
        return _answer({"taskId": task_id, "status": "PENDING"}, 200)
    began = dt.datetime.fromtimestamp(result["startedAt"], dt.UTC).isoformat()
    return _answer({"taskId": task_id, "status": "SUCCESS", "startedAt": began, "result": result}, 200)


def _answer(task: dict[str, Any], code: int) -> Response:
    return Response(json.dumps({**task, "statusUrl": f"/v1/tasks/{task['taskId']}"}), code, mimetype=_JSON)


@app.get("/readyz")
def ready() -> Response:
    """It answers when it is up."""
    return Response("{}", mimetype=_JSON)
