"""Acks of deliveries whose outcomes came together, as those of one turn of a worker's event loop: RabbitMQ settles them in one step.

Crash window: the outcome of a delivery is recorded before it is added here. A worker that dies, or loses its connection,
before the flush gets the message again, and its claim finds DONE or STALE: the window between outcome and ack, a little longer.
The recorder's dead letters are recorded again, which changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dispatch.crashpoints import reach
from dispatch.telemetry import logger

log = logger(__name__)


class Acks:
    """Acks that wait for the next flush. For one thread.

    Args:
        errors: of a connection that is gone, upon which the broker delivers again.
    """

    def __init__(self, errors: tuple[type[BaseException], ...]) -> None:
        self._errors = errors
        self._channel: Any = None
        self._pending: list[Any] = []
        self._in_hand: set[int] = set()  #: deliveries of the channel that no ack has settled; no more than the prefetch

    def delivered(self, message: Any) -> None:
        """Note each message that comes: none that is in hand may be acked for another's sake."""
        if message.channel is not self._channel:  # after a reconnect; nothing reads from the old channel any more
            self._channel, self._pending, self._in_hand = message.channel, [], set()
        self._in_hand.add(message.delivery_tag)

    def add(self, message: Any) -> int:
        """Ack a message at the next flush; how many wait for that. A lost channel's is delivered again instead."""
        if message.channel is self._channel:
            self._pending.append(message)
        return len(self._pending)

    def settled(self, message: Any) -> None:
        """Note a message that was acked or rejected at once."""
        if message.channel is self._channel:
            self._in_hand.discard(message.delivery_tag)

    def flush(self) -> None:
        """Write the acks: one for all up to the first delivery that is still in hand, and one for each beyond it."""
        pending, self._pending = self._pending, []
        if not pending or self._channel.connection is None:  # the broker delivers them again
            return
        reach("ack.waiting")
        self._in_hand.difference_update(message.delivery_tag for message in pending)
        first = min(self._in_hand, default=math.inf)
        self._ack([message for message in pending if message.delivery_tag < first])
        for message in pending:
            if message.delivery_tag > first:
                message.ack_log_error(log, self._errors)

    def _ack(self, together: Sequence[Any]) -> None:
        if not together:
            return
        last = max(together, key=lambda message: int(message.delivery_tag))
        last.ack_log_error(log, self._errors, multiple=len(together) > 1)
        for message in together:
            message._state = "ACK"  # noqa: SLF001 - kombu's
