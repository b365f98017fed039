"""The work queue's depth, exact and in a fraction of a millisecond, and its drain rate."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import amqp

from dispatch.broker import connections, faults, provision
from dispatch.broker.management import Management, ManagementUnavailable
from dispatch.config.groups import BrokerSettings
from dispatch.errors import Trouble
from dispatch.protocol import names

#: Seconds for connecting, and for each read and write.
_SOCKET = 1.0

#: Seconds for a call of the management API.
_RATE_BUDGET = 0.5


class Depth(NamedTuple):
    """A queue at this moment."""

    ready: int  #: messages that wait; unacknowledged ones don't count
    consumers: int


def depth(channel: Any, queue: str) -> Depth:
    """How many messages wait in a queue, by a passive declaration: exact, some 0.3 ms.

    Args:
        channel: an AMQP channel; RabbitMQ closes it when the queue is not there.
        queue: the queue's name.

    Returns:
        Ready messages and consumers.

    Raises:
        amqp.exceptions.NotFound: there is no such queue.
    """
    answer = channel.queue_declare(queue, passive=True)
    return Depth(answer.message_count, answer.consumer_count)


def depths(settings: BrokerSettings, queues: Sequence[str], seconds: float) -> dict[str, Depth]:
    """The depth of several queues, on a connection that is closed afterwards; needs no right on them.

    Args:
        settings: the broker, as the gateway's user.
        queues: their names.
        seconds: to wait at most. Each answer has a limit of its own, which a slow network may use up again and again.

    Returns:
        By name, without those that are not there, or not answered for in time.
    """
    found: dict[str, Depth] = {}
    reading = threading.Thread(target=_read_depths, args=(settings, queues, found), name="queue depths", daemon=True)
    reading.start()
    reading.join(seconds)
    return found.copy()


def _read_depths(settings: BrokerSettings, queues: Sequence[str], found: dict[str, Depth]) -> None:
    timeouts = {"read_timeout": _SOCKET, "write_timeout": _SOCKET}
    address = settings.address("gateway")
    with contextlib.suppress(provision.BrokerUnreachable, amqp.exceptions.AMQPError, OSError):  # noqa: SIM117 - the next line connects
        with connections.connection(
            address, connect_timeout=_SOCKET, heartbeat=0, transport_options=timeouts
        ) as connection:
            provision.connect(connection, address)
            channel = connection.channel()
            for queue in queues:
                try:
                    found[queue] = depth(channel, queue)
                except amqp.exceptions.NotFound:
                    channel = connection.channel()


class DepthGauge:
    """Reads the depth of a lane by passive declarations of its queues, on a connection of its own.

    The connection never publishes, so a memory alarm does not block it; it has no heartbeat, since each read
    has a time limit and there is one a second.

    Args:
        settings: the broker, as the gateway's user.
        queues: of the lane.
    """

    def __init__(self, settings: BrokerSettings, queues: Sequence[str] = (names.WORK_QUEUE,)) -> None:
        self._queues = queues
        self._address = settings.address("gateway")
        self._connection = connections.connection(
            self._address,
            connect_timeout=_SOCKET,
            heartbeat=0,
            transport_options={"read_timeout": _SOCKET, "write_timeout": _SOCKET},
        )
        self._channel: Any = None

    def read(self) -> int:
        """Ready messages in all of them."""
        if self._channel is None:
            provision.connect(self._connection, self._address)
            self._channel = self._connection.channel()
        return sum(depth(self._channel, queue).ready for queue in self._queues)

    def close(self) -> None:
        """Drop the connection; the next read makes a new one."""
        self._channel = None
        with contextlib.suppress(Exception):
            self._connection.collect()

    def trouble(self, exc: Exception) -> Trouble:
        """Why a read failed."""
        return faults.trouble(self._address, exc)


def ack_rate(settings: BrokerSettings, queues: Sequence[str] = (names.WORK_QUEUE,)) -> float | None:
    """Messages a second that workers acknowledged lately, as RabbitMQ measured.

    Args:
        settings: the management API.
        queues: of a lane.

    Returns:
        The rate; None when the management API can't be reached, which the guard copes with.
    """
    try:
        with Management(settings, budget=_RATE_BUDGET) as management:
            stats = [management.get("queues", management.vhost, queue) for queue in queues]
    except ManagementUnavailable:
        return None
    rates = [each.get("message_stats", {}).get("ack_details", {}).get("rate") for each in stats]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
