"""Where the peers' servers are, from the environment; their queues."""

from __future__ import annotations

import os

BROKER_URL = os.environ.get("PEER_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672/peers")
REDIS_URL = os.environ.get("PEER_REDIS_URL", "redis://127.0.0.1:6379/1")

#: As ours.
QUORUM = {"x-queue-type": "quorum"}

AIO_PIKA_QUEUE = "peer.aio-pika"
CELERY_QUEUE = "peer.celery"
DRAMATIQ_QUEUE = "peer.dramatiq"

#: Deliveries under way for each process of a worker, as ours with two children.
PREFETCH = 20
