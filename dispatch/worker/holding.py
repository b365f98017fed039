"""What may not run yet: the pauses as this worker knows them, and the hand-over of a delivery to the hold queue.

The order is: record the decision → publish the copy, confirmed → hand over → ack. Crash windows: see `dispatch.store.holds`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Mapping

from dispatch.background import Background
from dispatch.crashpoints import reach
from dispatch.errors import StoreError
from dispatch.protocol import names
from dispatch.protocol.copies import held_copy, parked_copy
from dispatch.protocol.dead_letters import CLAIMS_TOO_MUCH, Reason
from dispatch.protocol.message import CONCURRENCY_KEY, Copy, Message
from dispatch.protocol.pauses import Pause, holding
from dispatch.store.handovers import Handovers
from dispatch.store.holds import HoldAnswer, Holds
from dispatch.store.pauses import Pauses
from dispatch.telemetry import logger, task_log
from dispatch.worker.router import Router
from dispatch.worker.server_clock import ServerClock

log = logger(__name__)

#: Seconds between two reads of the pauses, of a worker's one command for them.
READ_INTERVAL = 1.0


class PauseWatch(Background):
    """The pauses as they were about a second ago: a delivery costs no command to Redis.

    Without an answer of Redis the last ones stay in force, and nothing new is claimed.

    Args:
        pauses: reads them.
        clock: learns Redis's time from the same answer.
    """

    def __init__(self, pauses: Pauses, clock: ServerClock) -> None:
        super().__init__("pauses", interval=READ_INTERVAL)
        self._pauses = pauses
        self._clock = clock
        self.paused: Mapping[str, Pause] = {}  #: by what is paused
        self.readers: list[Callable[[Collection[str]], None]] = []  #: called with what is paused after each read

    def prime(self) -> None:
        """Read them once before the first delivery, as far as Redis answers."""
        with contextlib.suppress(StoreError):
            self.step()

    def step(self) -> None:
        """Read them."""
        before = time.monotonic()
        pauses, server = self._pauses.read()
        self._clock.read(server, before, time.monotonic())
        read = {pause.what: pause for pause in pauses}
        if read.keys() != self.paused.keys():
            log.info("pauses", paused=sorted(read))
        self.paused = read
        for reader in self.readers:
            reader(read)

    def held_by(self, message: Message) -> str | None:
        """The pause that holds a delivery; None when it may run."""
        if not self.paused:
            return None
        key = message.text(CONCURRENCY_KEY)
        return holding(self.paused, message, (key,) if key else ())


class MayUndo(Exception):
    """The task is to be stopped, and its handler may have something to undo: its delivery is claimed, whatever holds it."""


class DeliveryHolder:
    """Hands deliveries over to the hold queue.

    Args:
        router: publishes, and parks what runs elsewhere.
        holds: records decisions.
        handovers: records that they are carried out.
        ttl: seconds after which a copy leaves the hold queue by itself.
    """

    def __init__(self, router: Router, holds: Holds, handovers: Handovers, *, ttl: float) -> None:
        self._router = router
        self._holds = holds
        self._handovers = handovers
        self._ttl = ttl
        self.ended: Callable[[Message], None] = lambda _: None  #: does what the end of a delivery's task asks for

    def job(
        self, message: Message, held_by: str, then: Callable[[Copy | None], None] | None = None
    ) -> Callable[[], None]:
        """The job that holds a delivery; called until it returns, then the delivery is acked. It raises `MayUndo`.

        Args:
            message: the delivery's.
            held_by: a pause, or what `then` waits for.
            then: of a delivery that no pause holds: called with the copy that was published, None where there was none to publish.
        """
        return _HoldHandOver(self, message, held_by, then)

    def decide(self, message: Message, held_by: str, *, listed: bool) -> Copy | Callable[[], None]:
        """Record a hold.

        Returns:
            The copy to publish, or what is to be done in its place.

        Raises:
            MayUndo: it is not held.
            StoreUnavailable: unknown; decide again.
        """
        attempts = self._router.ladders.of(message.type).attempts
        held = self._holds.hold(message, held_copy(message, self._ttl), held_by, attempts, listed=listed)
        if held.copy is not None:
            return held.copy
        match held.answer:
            case HoldAnswer.BUSY:
                return parked_copy(message)
            case HoldAnswer.UNDO:
                raise MayUndo
            case HoldAnswer.FOREIGN:
                return self._router.dead_lettering(message, Reason.UNAUTHENTIC, CLAIMS_TOO_MUCH)
            case HoldAnswer.DONE | HoldAnswer.CANCELLED:
                return functools.partial(self.ended, message)
            case _:
                return _nothing

    def carry_out(self, copy: Copy) -> None:
        """Publish a copy, confirmed, and record that; an outage may not hold the ack up.

        Raises:
            PublishError: the copy may not be stored; it is sent again, and extra copies are fenced.
        """
        self._router.publish(copy)
        reach("hold.published")
        if copy.queue == names.LEASE_QUEUE:
            return
        if copy.queue != names.HOLD_QUEUE:
            self._router.hand_over(copy, "")
            return
        try:
            self._handovers.hand_over(copy, wait=self._ttl)
        except StoreError as exc:
            task_log(copy.message).warning("hand-over not recorded; the copy's claim mends it", reason=str(exc))


class _HoldHandOver:
    """A delivery on its way to the hold queue; called again and again until it is through."""

    def __init__(
        self, holder: DeliveryHolder, message: Message, held_by: str, then: Callable[[Copy | None], None] | None
    ) -> None:
        self._after = then
        self._holder = holder
        self._message = message
        self._held_by = held_by
        self._then: Copy | Callable[[], None] | None = None

    def __call__(self) -> None:
        """Go on from where the last try ended."""
        if self._then is None:
            self._then = self._holder.decide(self._message, self._held_by, listed=self._after is None)
            reach("hold.decided")
        if not isinstance(self._then, Copy):
            self._then()
            if self._after is not None:
                self._after(None)
            return
        self._holder.carry_out(self._then)
        reach("hold.handed-over")
        if self._after is not None:
            self._after(self._then)
        task_log(self._message).debug("held", held_by=self._held_by, queue=self._then.queue)


def _nothing() -> None:
    """It is stale: it is acked."""
