"""A dramatiq actor with results in Redis: a quorum queue, confirms.

What it lacks beside ours: a redelivered task runs again (at least once), no record before the result, retries in a second queue
without a confirmed hand-over.

::

    python -m bench.peers.dramatiq_tasks COUNT      fills its queue
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.addresses import BROKER_URL, DRAMATIQ_QUEUE, QUORUM, REDIS_URL


class QuorumBroker(RabbitmqBroker):
    """Declares quorum queues."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), **QUORUM}


# Filling waits for the whole, not for each message.
broker = QuorumBroker(url=BROKER_URL, confirm_delivery=not os.environ.get("PEER_FILLS"))
broker.add_middleware(Results(backend=RedisBackend(url=REDIS_URL), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=DRAMATIQ_QUEUE, max_retries=0)
def echo(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the message, and when this run began, in epoch seconds."""
    began = time.time()
    return {"message": payload["message"], "attempt": 1, "startedAt": began}


def fill(count: int, message: str) -> None:
    """Queue tasks."""
    payload = {"message": message, "sleep_seconds": 0, "fail_times": 0, "permanent": False}
    for _ in range(count):
        echo.send(payload=payload)


if __name__ == "__main__":
    fill(int(sys.argv[1]), sys.argv[2])
