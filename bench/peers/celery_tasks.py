"""Stock Celery with results in Redis: a quorum queue, late acks, confirms.

What it lacks beside ours: a redelivered task runs again (at least once), retries wait in the worker's memory, no dead-letter queue.

::

    python -m bench.peers.celery_tasks COUNT      fills its queue
"""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from bench.peers.addresses import BROKER_URL, CELERY_QUEUE, PREFETCH, QUORUM, REDIS_URL

app = Celery("peer", broker=BROKER_URL, backend=REDIS_URL)
app.conf.update(
    task_queues=[Queue(CELERY_QUEUE, Exchange(CELERY_QUEUE, "direct"), CELERY_QUEUE, queue_arguments=QUORUM)],
    task_default_queue=CELERY_QUEUE,
    task_default_exchange=CELERY_QUEUE,
    task_default_routing_key=CELERY_QUEUE,
    task_create_missing_queues=False,
    task_acks_late=True,
    worker_prefetch_multiplier=PREFETCH,
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="echo")
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the message."""
    return {"message": payload["message"], "attempt": 1}


def fill(count: int, message: str) -> None:
    """Queue tasks."""
    payload = {"message": message, "sleep_seconds": 0, "fail_times": 0, "permanent": False}
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(count):
            echo.apply_async(kwargs={"payload": payload}, producer=producer)


if __name__ == "__main__":
    fill(int(sys.argv[1]), sys.argv[2])
