"""How hand-overs are carried out: record the decision → publish the next copy, confirmed → hand over. Then the caller acks.

Those that come together go together: each step for all of them in one round trip, on one thread. Whatever keeps one of them from it
(Redis or RabbitMQ away, a full queue, a command that is refused) it meets again when it goes on alone, from where it stands.

Crash windows: see `dispatch.store.handovers`, of each task by itself: every one leaves the message unacked, so a copy too many,
never one too few. What several share: a connection that ends in the middle leaves some decided, or published, and no answer to any.
A decision is safe to repeat (ROUTE), and of two copies of one seq the second is STALE.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from dispatch.broker.publisher import Publisher
from dispatch.crashpoints import reach
from dispatch.errors import DispatchError, Nacked, PublishError, StoreError
from dispatch.protocol import names
from dispatch.protocol.copies import parked_copy, wait_of
from dispatch.protocol.message import Copy
from dispatch.protocol.retry import Ladder
from dispatch.store.claims import Claims
from dispatch.store.handovers import Confirmed, Decided, DecisionAnswer, Handovers, RunEnd
from dispatch.telemetry import logger, metrics, task_log, tracing
from dispatch.worker.executor import RetryingExecutor
from dispatch.worker.handover import HandOver

log = logger(__name__)

#: Bytes of bodies after which a batch takes no more: Redis and RabbitMQ answer all of it within the time for one.
_LARGEST = 4 * 2**20

#: What the workers' own user may write to.
_OURS = (names.RETRY_EXCHANGE, names.DEAD_EXCHANGE)


class HandingOver:
    """The steps of hand-overs, for one and for several at once. Thread-safe.

    Args:
        claims: claims again what Redis has lost.
        handovers: records decisions.
        publisher: may write to the retry exchange and the dead-letter exchange.
        later: may write to the delay levels and the task exchange; without them, or without the right to them, the broker ends its
            connection.
        ladder: every rung there is.
    """

    def __init__(
        self, claims: Claims, handovers: Handovers, publisher: Publisher, later: Publisher, ladder: Ladder
    ) -> None:
        self._claims = claims
        self._handovers = handovers
        self._publisher = publisher
        self._later = later
        self._ladder = ladder

    def one(self, handover: HandOver) -> None:
        """Carry one out, from where its last try ended.

        Raises:
            StoreUnavailable: the decision may not be recorded.
            PublishError: the copy may not be stored; it is sent again, and extra copies are fenced.
        """
        if handover.through:
            return
        with handover.active():
            if not handover.recorded:
                self._record([handover])
                reach("route.decided")
            if handover.copy is not None:
                self.publish(handover.copy)
                reach("route.published")
                self._hand_over([handover])
                reach("route.handed-over")
        handover.finish()

    def many(self, together: Sequence[HandOver]) -> None:
        """Carry several out, as far as they go together; the others are not `HandOver.through` then.

        Args:
            together: of different tasks, none of them tried before.

        Raises:
            StoreError: none of them may be recorded.
        """
        began = time.time()
        self._record(together)
        reach("route.decided")
        _trace_redis(together, began)
        going = [each for each in together if each.copy is not None]
        began = time.time()
        outcomes = self._publish_all([each.copy for each in going if each.copy is not None])
        reach("route.published")
        confirmed = [each for each, error in zip(going, outcomes, strict=True) if error is None]
        _trace_publish(confirmed, began)
        began = time.time()
        self._hand_over(confirmed)
        reach("route.handed-over")
        _trace_redis(confirmed, began, "hand_over")
        for each in together:
            if each.cancelled or each in confirmed:
                each.finish()

    def publish(self, copy: Copy) -> None:
        """Publish a copy, confirmed. One that the full work queue refuses waits in the lease queue, and comes from there when there is room.

        Room comes of acks. Copies that wait for it in workers' hands, each with an unacked one, would keep the queue full for ever.

        Raises:
            PublishError: it may not be stored.
        """
        try:
            self._publish(copy)
        except Nacked:
            if copy.exchange != names.TASK_EXCHANGE:
                raise
            task_log(copy.message).warning("the work queue is full: the next copy waits in the lease queue")
            self._publish(parked_copy(copy.message))

    def hand_over(self, copy: Copy, owner: str) -> None:
        """Finish a hand-over; the copy is confirmed, so an outage may not hold the ack up."""
        self._record_confirmed([Confirmed(copy, owner, wait_of(copy, self._ladder))])

    # --- the steps, for all of some ------------------------------------------------------------------
    def _record(self, handovers: Sequence[HandOver]) -> None:
        ends = []
        for each in handovers:
            with each.active():
                ends.append(each.end())
        answers = self._handovers.decide_many(ends)
        for each, end, decided in zip(handovers, ends, answers, strict=True):
            each.take(self._claimed_again(end) if decided.answer is DecisionAnswer.UNCLAIMED else decided)

    def _claimed_again(self, end: RunEnd) -> Decided:
        """The answer to a decision about a run whose claim Redis has lost."""
        if self._claims.claim_again(end.message, end.ticket, end.max_attempts):
            return self._handovers.decide_many([end])[0]
        return Decided(DecisionAnswer.REFUSED, None)

    def _publish_all(self, copies: Sequence[Copy]) -> list[PublishError | None]:
        """What has kept each copy from being stored; None where RabbitMQ has confirmed it."""
        outcomes: dict[int, PublishError | None] = {}
        for publisher in (self._publisher, self._later):
            own = [number for number, copy in enumerate(copies) if self._publisher_of(copy) is publisher]
            if own:
                began = time.monotonic()
                outcomes |= zip(own, publisher.publish_many([copies[number] for number in own]), strict=True)
                _observe(time.monotonic() - began, sum(outcomes[number] is None for number in own))
        return [outcomes[number] for number in range(len(copies))]

    def _hand_over(self, handovers: Sequence[HandOver]) -> None:
        self._record_confirmed(
            [
                Confirmed(each.copy, each.ticket.owner, wait_of(each.copy, self._ladder))
                for each in handovers
                if each.copy
            ]
        )

    def _record_confirmed(self, confirmed: Sequence[Confirmed]) -> None:
        try:
            self._handovers.hand_over_many(confirmed)
        except StoreError as exc:
            for each in confirmed:
                task_log(each.copy.message).warning(
                    "hand-over not recorded; the copy's claim mends it", reason=str(exc)
                )

    def _publish(self, copy: Copy) -> None:
        _observe(self._publisher_of(copy).publish(copy.message, copy.exchange, copy.routing_key))

    def _publisher_of(self, copy: Copy) -> Publisher:
        return self._publisher if copy.exchange in _OURS else self._later


class HandOverBatcher:
    """Carries out hand-overs that come together on one thread, each of their steps for all at once.

    Args:
        steps: what it does.
        executor: takes what must not hold others up, or has to be tried again.
    """

    def __init__(self, steps: HandingOver, executor: RetryingExecutor) -> None:
        self._steps = steps
        self._executor = executor
        self._changed = threading.Condition()
        self._pending: list[tuple[HandOver, Callable[[], None], bool]] = []
        self._under_way = False
        self._stopping = False

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._work, name="hand-overs", daemon=True).start()

    def stop(self) -> None:
        """End the thread after its current batch; the others' messages stay unacked, and the broker delivers them again."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether every hand-over is through, or is the executor's."""
        with self._changed:
            return self._stopping or not (self._pending or self._under_way)

    def submit(self, handover: HandOver, job: Callable[[], None], *, brief: bool) -> None:
        """Carry a hand-over out with others.

        Args:
            handover: not tried before.
            job: what carries it out alone, and what follows it; called once when it is through, otherwise by the executor until
                it returns.
            brief: nothing waits in what follows it.
        """
        with self._changed:
            self._pending.append((handover, job, brief))
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._steps.many([handover for handover, _, _ in batch])
            except DispatchError:
                pass  # each meets it again, and its line in the log has the reason
            except Exception:
                log.exception("hand-overs that came together failed: each goes on alone")
            for handover, job, brief in batch:
                self._go_on(job, alone=not (brief and handover.through and handover.copy is not None))
            with self._changed:
                self._under_way = False

    def _next(self) -> list[tuple[HandOver, Callable[[], None], bool]]:
        with self._changed:
            while not (self._stopping or self._pending):
                self._changed.wait()
            if self._stopping:
                return []
            self._under_way = True
            count, size = 0, 0
            while count < len(self._pending) and size < _LARGEST:
                size += len(self._pending[count][0].message.body)
                count += 1
            batch, self._pending = self._pending[:count], self._pending[count:]
            return batch

    def _go_on(self, job: Callable[[], None], *, alone: bool) -> None:
        try:
            if not alone:
                job()
                return
        except Exception:
            log.exception("what follows a hand-over failed: it is tried again")
        self._executor.submit(job)


def _observe(seconds: float, confirms: int = 1) -> None:
    for _ in range(confirms):
        metrics.CONFIRM.observe(seconds)


def _trace_redis(handovers: Sequence[HandOver], began: float, script: str = "") -> None:
    """A round trip that several have taken together, in the trace of each; without a script, each with its own."""
    for each in handovers:
        name = script or each.transition
        about = {"db.system.name": "redis", "db.operation.name": name, "db.operation.batch.size": len(handovers)}
        tracing.record(f"redis {name}", began, time.time(), parent=each.traceparent, kind="client", attributes=about)


def _trace_publish(handovers: Sequence[HandOver], began: float) -> None:
    """The same, of their copies' publishes and confirms."""
    for each in handovers:
        if each.copy is not None:
            attributes = tracing.messaging("send", each.copy.message, each.copy.exchange)
            name, parent = f"publish {each.copy.exchange}", each.traceparent
            tracing.record(name, began, time.time(), parent=parent, kind="producer", attributes=attributes)
