"""Messages through the work queue of the default lane with one shard and with several: RabbitMQ's part alone.

One process publishes with confirms and consumes with acks, as the gateway and the worker do, without Redis and handlers.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Mapping
from typing import Any

from kombu import Connection

import topology
from bench.harness.procfs import CpuMeter
from bench.harness.results import rows_of
from bench.harness.servers import BenchServers
from bench.harness.turns import OTHERS, MeasuredTurn, interleaved
from bench.parts.base import Measured, add_rounds, measuring
from dispatch.broker import provision
from dispatch.broker.confirms import ConfirmVerdict
from dispatch.broker.publisher import Publisher
from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import SHARD, Message
from dispatch.protocol.shards import shard_of

NAME = "shards"
HELP = "messages a second through the default lane's queues with 1, 2, 4 shards: RabbitMQ alone"

#: Publishes that wait for their confirms, and deliveries of a consumer that wait for their acks.
WINDOW, PREFETCH = 500, 500

#: Bytes of a body.
BODY = 300


@dataclasses.dataclass(frozen=True)
class ShardedQueue:
    """A vhost with some shards."""

    settings: Settings
    pids: Mapping[str, tuple[int, ...]]

    def turn(self, count: int) -> dict[str, float]:
        """Publish and consume messages at the same time."""
        meter, began, cpu = CpuMeter(self.pids), time.monotonic(), time.process_time()
        consumer = threading.Thread(target=self._consume, args=(count,))
        consumer.start()
        self._publish(count)
        consumer.join()
        took, used = time.monotonic() - began, time.process_time() - cpu
        return {
            "messages/s": count / took, "client CPU µs": used / count * 1e6, **meter.per_operation(count),
            OTHERS: meter.others(used) * 100,
        }  # fmt: skip

    def _publish(self, count: int) -> None:
        with contextlib.closing(Publisher(self.settings.address("gateway"), timeout=30)) as publisher:
            while not publisher.ready():
                time.sleep(0.05)
            connection = publisher._connection  # noqa: SLF001 - publishes without waiting for each confirm
            assert connection is not None  # noqa: S101 - it is ready
            pending: collections.deque[ConfirmVerdict] = collections.deque()
            for _ in range(count):
                task_id, own = new_task_id(), {}
                if self.settings.shards > 1:
                    own = {SHARD: str(shard_of(task_id, self.settings.shards))}
                message = Message(b"x" * BODY, {"id": task_id, "task": "echo", **own})
                key = names.routing_key("echo")
                pending.append(connection.publish(message, names.TASK_EXCHANGE, key, time.monotonic() + 60))
                if len(pending) >= WINDOW:
                    pending.popleft().result(60)
            for verdict in pending:
                verdict.result(60)

    def _consume(self, count: int) -> None:
        with Connection(self.settings.broker("admin")) as connection:
            channel, came, unacked = connection.default_channel, 0, 0
            channel.basic_qos(0, PREFETCH, False)

            def on_message(message: Any) -> None:
                nonlocal came, unacked
                came += 1
                unacked += 1
                if unacked >= PREFETCH // 4 or came == count:
                    channel.basic_ack(message.delivery_tag, multiple=True)
                    unacked = 0

            for queue in self.settings.work_queues:
                channel.basic_consume(queue, callback=on_message)
            until = time.monotonic() + 120
            while came < count and time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_rounds(parser, 5)
    parser.add_argument("--messages", type=int, default=20_000, help="of a turn (%(default)s)")
    parser.add_argument("--shards", default="1,2,4", help="numbers of shards (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """The numbers of shards alternate."""
    with measuring() as (on, measured):
        turns: dict[tuple[str, str], MeasuredTurn] = {
            (f"{BODY} bytes", f"{shards} shards"): functools.partial(_prepared(on, shards).turn, options.messages)
            for shards in map(int, options.shards.split(","))
        }
        measured.rows = rows_of(interleaved(turns, options.rounds))
    return measured


def _prepared(on: BenchServers, shards: int) -> ShardedQueue:
    url = on.vhost(f"shards-{shards}")
    management = on.addresses["DISPATCH_MANAGEMENT_URL"]
    settings = configuration.load(broker_url=url, management_url=management, shards=shards, queue_depth_limit=10**7)
    with Connection(url) as connection:
        provision.declare(connection, topology.broker_map(settings), settings)
    return ShardedQueue(settings, on.pids)
