"""The worker's main process renews the leases of all its deliveries, from their claim to their ack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from dispatch.background import Background
from dispatch.crashpoints import reach
from dispatch.protocol.message import Message
from dispatch.store.claims import Claims, Ticket
from dispatch.telemetry import logger, metrics

log = logger(__name__)


class Leases(Background):
    """Renews leases on a thread and a Redis handle of its own, so that a busy event loop or a slow call loses none.

    Args:
        claims: on that handle.
        lease: seconds that a lease lives; renewed at a third of it.
    """

    def __init__(self, claims: Claims, *, lease: float) -> None:
        super().__init__("leases", interval=lease / 3)
        self._claims = claims
        self._held: dict[Ticket, tuple[Message, int]] = {}
        self._on_stop: dict[Ticket, Callable[[float], None]] = {}
        self._renewed: set[Ticket] = set()
        self._lock = threading.Lock()

    def hold(
        self,
        ticket: Ticket,
        message: Message,
        max_attempts: int,
        on_stop: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """Renew a delivery's lease from now on.

        Args:
            ticket: the run's.
            message: the copy.
            max_attempts: for a record that has to be rebuilt.
            on_stop: called at each renewal, on this thread, with the seconds since the task was asked to stop.
        """
        with self._lock:
            self._held[ticket] = (message, max_attempts)
            self._on_stop[ticket] = on_stop
            metrics.IN_FLIGHT.set(len(self._held))

    def drop(self, ticket: Ticket) -> None:
        """Renew it no longer."""
        with self._lock:
            self._held.pop(ticket, None)
            self._on_stop.pop(ticket, None)
            metrics.IN_FLIGHT.set(len(self._held))

    def step(self) -> None:
        """Renew what is held.

        Raises:
            StoreError: Redis did not take it; the next renewal is still in time.
        """
        with self._lock:
            held = dict(self._held)
        if held:
            reach("lease.renewing")
        renewed = self._claims.renew(held)
        self._count_lost(held, renewed.lost)
        for ticket, seconds in renewed.to_stop.items():
            with self._lock:
                on_stop = self._on_stop.get(ticket)
            if on_stop is not None:
                on_stop(seconds)
        for ticket in renewed.unclaimed:
            self._claim_again(ticket)
        for ticket in renewed.lost:
            # Not an error by itself: a delivery whose child has not claimed yet holds no lease either.
            log.debug("lease not held", task_id=held[ticket][0].task_id, owner=ticket.owner)

    def _claim_again(self, ticket: Ticket) -> None:
        """Redis has lost a claim with its last seconds; its run goes on, unless it was dropped meanwhile."""
        with self._lock:
            held = self._held.get(ticket)
        if held is not None and self._claims.claim_again(held[0], ticket, held[1]):
            log.warning("claimed again: Redis had lost the claim", task_id=held[0].task_id, owner=ticket.owner)

    def _count_lost(self, held: Iterable[Ticket], lost: Sequence[Ticket]) -> None:
        """Only a lease that was renewed before can have been lost: before the claim there is none."""
        with self._lock:
            still_held = set(self._held)
        for ticket in self._renewed.intersection(lost, still_held):
            metrics.LEASES_LOST.inc()
            log.warning("lease lost", owner=ticket.owner)
        self._renewed = still_held.intersection(held).difference(lost)
