"""FastAPI, aio-pika and redis-py: one SET, one mandatory publish that is confirmed, 202; the status by GET with its entity tag.

What it lacks beside ours: quotas, a depth guard, the outcome of a publish in doubt, a record that follows the task, access log and metrics.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import orjson
import redis.asyncio
from fastapi import FastAPI, Request, Response

from bench.peers.addresses import AIO_PIKA_QUEUE, BROKER_URL, QUORUM, REDIS_URL
from bench.peers.body import PeerBody

_DAY = 86_400
_JSON = "application/json"


@contextlib.asynccontextmanager
async def _connected(api: FastAPI) -> AsyncIterator[None]:
    api.state.redis = redis.asyncio.Redis.from_url(REDIS_URL)
    connection = await aio_pika.connect_robust(BROKER_URL)
    channel = await connection.channel(publisher_confirms=True)
    await channel.declare_queue(AIO_PIKA_QUEUE, durable=True, arguments=QUORUM)
    api.state.exchange = channel.default_exchange
    yield
    await connection.close()
    await api.state.redis.aclose()


app = FastAPI(lifespan=_connected)


@app.post("/v1/tasks", status_code=202)
async def submit(body: PeerBody, request: Request) -> Response:
    """Accept a task."""
    state, task_id = request.app.state, str(uuid.uuid4())
    key = request.headers.get("idempotency-key")
    if key is not None and not await state.redis.set(f"idem:{key}", task_id, ex=_DAY, nx=True):
        return _accepted((await state.redis.get(f"idem:{key}")).decode())
    record = orjson.dumps({"taskId": task_id, "status": "PENDING", "createdAt": time.time()})
    await state.redis.set(f"task:{task_id}", record, ex=_DAY, nx=True)
    message = orjson.dumps({"task": "echo", "id": task_id, "payload": body.payload.model_dump()})
    await state.exchange.publish(
        aio_pika.Message(
            message, delivery_mode=aio_pika.DeliveryMode.PERSISTENT, content_type=_JSON, message_id=task_id
        ),
        AIO_PIKA_QUEUE,
        mandatory=True,
    )
    return _accepted(task_id)


def _accepted(task_id: str) -> Response:
    answer: dict[str, Any] = {"taskId": task_id, "status": "PENDING", "statusUrl": f"/v1/tasks/{task_id}"}
    return Response(orjson.dumps(answer), 202, media_type=_JSON)


@app.get("/v1/tasks/{task_id}")
async def status(task_id: str, request: Request) -> Response:
    """A task's record."""
    record = await request.app.state.redis.get(f"task:{task_id}")
    if record is None:
        return Response(b"{}", 404, media_type=_JSON)
    tag = f'"{hashlib.md5(record, usedforsecurity=False).hexdigest()}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    return Response(record, 200, media_type=_JSON, headers={"etag": tag})


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """It answers when it is connected."""
    return {}
