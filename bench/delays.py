"""How late messages come out of the delay levels: spread over a minute, and many for the same moment.

::

    DISPATCH_RUN_DIR=.run-bench python -m launcher servers
    set -a; . .run-bench/env; set +a
    python -m bench.delays                  # 10,000 of 1 to 60 s
    python -m bench.delays 100000 45 45     # 100,000 of 45 s: how many, from, to

Messages are published and consumed as they are, without gateway and workers, so what is measured is RabbitMQ's part.
"""

from __future__ import annotations

import collections
import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from kombu import Connection

import topology
from dispatch.broker import provision
from dispatch.broker.confirms import ConfirmVerdict
from dispatch.broker.publisher import Publisher
from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.protocol.copies import delayed_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message

#: Publishes that wait for their confirms at the same time, and deliveries that wait for their acks.
WINDOW, PREFETCH = 500, 1_000

#: The header that has the time at which a message is due, epoch seconds.
DUE = "due"


def main() -> None:
    """Publish, consume, and print how late each message was."""
    given = [int(word) for word in sys.argv[1:4]]
    many, shortest, most = [*given, *(10_000, 1, 60)[len(given) :]]
    settings = configuration.load(queue_depth_limit=2 * many)
    with Connection(settings.broker("admin")) as connection:
        provision.declare(connection, topology.broker_map(settings), settings)
        connection.default_channel.queue_purge(names.WORK_QUEUE)
    came: list[float] = []
    consumer = threading.Thread(target=_consume, args=(settings, came, many, most + 600))
    consumer.start()
    began = time.monotonic()
    with _publishing(settings) as publish:
        pending: collections.deque[ConfirmVerdict] = collections.deque()
        for number in range(many):
            pending.append(publish(random.Random(number).randint(shortest, most)))
            if len(pending) >= WINDOW:
                pending.popleft().result(60)
        for verdict in pending:
            verdict.result(60)
    took = time.monotonic() - began
    _report(f"published, {shortest} to {most} s", f"{many} in {took:.2f} s, {many / took:.0f} a second")
    consumer.join()
    late = sorted(came)
    figures = {"min": late[0], "p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "max": late[-1]}
    _report("late", ", ".join(f"{name} {1_000 * seconds:.1f} ms" for name, seconds in figures.items()))
    _report("came", f"{len(late)} of {many}")


@contextlib.contextmanager
def _publishing(settings: Settings) -> Iterator[Any]:
    """A function that publishes a message for some seconds later, and does not wait for its confirm."""
    publisher = Publisher(settings.address("gateway"), timeout=30)
    while not publisher.ready():
        time.sleep(0.05)
    connection = publisher._connection  # noqa: SLF001 - publishes without waiting for each confirm
    assert connection is not None  # noqa: S101 - it is ready

    def publish(seconds: int) -> ConfirmVerdict:
        due = time.time() + seconds
        message = Message(b"x" * 300, {"id": new_task_id(), "task": "echo", DUE: str(due)})
        copy = delayed_copy(message, seconds)
        return connection.publish(copy.message, copy.exchange, copy.routing_key, time.monotonic() + 60)

    yield publish
    publisher.close()


def _consume(settings: Settings, came: list[float], many: int, patience: float) -> None:
    with Connection(settings.broker("admin")) as connection:
        channel = connection.default_channel
        channel.basic_qos(0, PREFETCH, False)

        def on_message(message: Any) -> None:
            came.append(time.time() - float(message.headers[DUE]))
            if len(came) % (PREFETCH // 2) == 0 or len(came) == many:
                channel.basic_ack(message.delivery_tag, multiple=True)

        channel.basic_consume(names.WORK_QUEUE, callback=on_message)
        until = time.monotonic() + patience
        while len(came) < many and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                connection.drain_events(timeout=1)


def _report(measurement: str, details: str) -> None:
    sys.stdout.write(f"{measurement:30} {details}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
