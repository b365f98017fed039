"""A queue as the gateway sees it, for tests of what is made of that."""

import dataclasses

from dispatch.broker.queue_stats import QueueView

PLAIN_QUEUE = QueueView(
    name="robot.task.q", role="work", ready=3, unacked=2, total=5, dead_lettering=0, consumers=1, publish_rate=1.5, deliver_rate=1.0,
    ack_rate=1.0, ttl=3_600.0, dead_letter_exchange="robot.task.dlx", max_length=12_000, delivery_limit=200,
    guard={"limit": 10_000, "refusing": False}, policy="robot-work", bindings=(), drift=(), as_of=1_795_487_760_000,
)  # fmt: skip


def queue_view(**changes):
    return dataclasses.replace(PLAIN_QUEUE, **changes)
