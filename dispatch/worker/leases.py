"""The worker's main process keeps the leases of all its deliveries, from their claim to their ack."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from dispatch.config.settings import Settings
from dispatch.crashpoints import reach
from dispatch.errors import StoreError
from dispatch.protocol.message import Message
from dispatch.store.claims import Claims, Ticket
from dispatch.telemetry import logger, metrics

log = logger("dispatch.leases")


class Leases:
    """Renews leases on a thread and a connection of its own, so that a busy event loop loses none.

    Args:
        settings: the lease; renewed at a third of it.
    """

    def __init__(self, settings: Settings) -> None:
        self._claims = Claims(settings, timeout=min(1.0, settings.lease / 4))
        self._every = settings.lease / 3
        self._held: dict[Ticket, tuple[Message, int]] = {}
        self._renewed: set[Ticket] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; leases that are still held lapse."""
        self._stop.set()

    def hold(self, ticket: Ticket, message: Message, max_attempts: int) -> None:
        """Keep a delivery's lease from now on."""
        with self._lock:
            self._held[ticket] = (message, max_attempts)
            metrics.IN_FLIGHT.set(len(self._held))

    def drop(self, ticket: Ticket) -> None:
        """The delivery is settled."""
        with self._lock:
            self._held.pop(ticket, None)
            metrics.IN_FLIGHT.set(len(self._held))

    def _renew_for_ever(self) -> None:
        while not self._stop.wait(self._every):
            with self._lock:
                held = dict(self._held)
            if held:
                reach("lease.renewing")
            try:
                lost = self._claims.renew(held)
            except StoreError as exc:
                log.warning("leases not renewed", reason=str(exc), held=len(held))
                continue
            except Exception:  # this thread must not end: every lease would lapse
                log.exception("leases not renewed", held=len(held))
                continue
            self._count_lost(held, lost)
            for ticket in lost:
                # Not an error by itself: a delivery whose child has not claimed yet holds no lease either.
                log.debug("lease not held", task_id=held[ticket][0].task_id, owner=ticket.owner)

    def _count_lost(self, held: Iterable[Ticket], lost: Sequence[Ticket]) -> None:
        """Only a lease that was renewed before can have been lost: before the claim there is none."""
        with self._lock:
            still = set(self._held)
        for ticket in self._renewed.intersection(lost, still):
            metrics.LEASES_LOST.inc()
            log.warning("lease lost", owner=ticket.owner)
        self._renewed = still.intersection(held).difference(lost)
