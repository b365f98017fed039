"""Concurrency keys of deliveries: taken before the claim, renewed with the lease, given back after the end; see `dispatch.store.concurrency`.

So are the rates of their types: a place in a rate is taken last, and given back only where no run has begun; see `dispatch.store.rates`.
A delivery without a key and a rate passes without a command to Redis.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping

from dispatch.background import Background
from dispatch.control.key_sender import KeySender
from dispatch.crashpoints import reach
from dispatch.errors import StoreError
from dispatch.maintenance.rate_keeper import RateKeeper
from dispatch.protocol import names
from dispatch.protocol.concurrency import KeyLimit, Limit, TypeLimits, fence_of, keys_of
from dispatch.protocol.message import Copy, Message
from dispatch.protocol.rates import RateLimit
from dispatch.protocol.record import Record, State
from dispatch.store.concurrency import ConcurrencyKeys, KeyAnswer
from dispatch.store.rates import RateAnswer
from dispatch.telemetry import logger, task_log
from dispatch.worker.executor import RetryingExecutor

log = logger(__name__)


class KeyRenewals(Background):
    """Renews what the deliveries in hand hold, on a thread and a Redis handle of its own, as `Leases`.

    Args:
        keys: on that handle.
        lease: seconds that a holder lives; renewed at a third of it.
    """

    def __init__(self, keys: ConcurrencyKeys, *, lease: float) -> None:
        super().__init__("key-renewals", interval=lease / 3)
        self._keys = keys
        self._held: dict[str, tuple[Message, tuple[KeyLimit, ...]]] = {}  # by the delivery's owner
        self._lock = threading.Lock()

    def hold(self, owner: str, message: Message, held: tuple[KeyLimit, ...]) -> None:
        """Renew a delivery's keys from now on."""
        with self._lock:
            self._held[owner] = (message, held)

    def drop(self, owner: str) -> None:
        """Renew them no longer."""
        with self._lock:
            self._held.pop(owner, None)

    def step(self) -> None:
        """Renew what is held.

        Raises:
            StoreError: Redis did not take it; the next renewal is still in time.
        """
        with self._lock:
            held = [(key, message) for message, keys in self._held.values() for key in keys]
        for name, task_id in self._keys.renew(held):
            log.warning("concurrency key lost: another task may run beside this one", key=name, task_id=task_id)


class KeyGate:
    """Takes and gives back the keys of deliveries, and their places in rates. Thread-safe.

    Args:
        keys: the keys.
        sender: sends those that are called.
        renewals: renews what is held.
        keeper: has the rates, and calls what waits for them.
        limits: of the task types that have any.
        record: reads a task's record.
        margin: seconds that a key is kept beyond a wait: as long as the next step may be in the work queue.
    """

    def __init__(
        self,
        keys: ConcurrencyKeys,
        sender: KeySender,
        renewals: KeyRenewals,
        *,
        keeper: RateKeeper,
        limits: Mapping[str, TypeLimits],
        record: Callable[[str], Record | None],
        margin: float,
    ) -> None:
        self._keys = keys
        self._sender = sender
        self._rates = keeper.rates
        self._limits = limits
        self._record = record
        self._margin = margin
        self._executor = RetryingExecutor(1)  # one thread: keys are taken in the order of the deliveries
        self.renewals = renewals
        self.keeper = keeper
        self.submit = self._executor.submit
        self.start = self._executor.start
        self.stop = self._executor.stop

    def keys_of(self, message: Message) -> tuple[Limit, ...]:
        """What a copy has to take."""
        return keys_of(message, self._limits)

    def take(self, owner: str, message: Message, keys: tuple[Limit, ...]) -> Limit | None:
        """Take all keys of a delivery, or none.

        Args:
            owner: the delivery's.
            message: the copy.
            keys: as `keys_of` returns them.

        Returns:
            The key that others hold, or the rate that is used up, for which the task is listed; None when it may run.

        Raises:
            StoreUnavailable: unknown; take them again.
        """
        taken: list[str] = []  # what is given back where another one is missing
        for number, key in enumerate(keys):
            answer = self._take(key, message, owner)
            if answer in (KeyAnswer.WAIT, RateAnswer.WAIT):
                for name in taken:
                    self._release(name, message)
                for later in keys[number + 1 :]:  # for which it may have been called: that turn is another's
                    self._drop(later, message)
                return key
            # The key that a task has kept through a wait stays its own: a robot that cleans is busy.
            if answer is KeyAnswer.TAKEN or (answer is KeyAnswer.SAME and not message.step):
                taken.append(key.name)
        reach("key.taken")
        if held := _held(keys):
            self.renewals.hold(owner, message, held)
        return None

    def _take(self, key: Limit, message: Message, owner: str) -> KeyAnswer | RateAnswer:
        if isinstance(key, RateLimit):
            return self._rates.take(key, message, owner)
        verdict = self._keys.take(key, message)
        if verdict.answer is KeyAnswer.WAIT:
            self._sender.send(key.name, verdict.unsent)
        return verdict.answer

    def give_back(self, owner: str, message: Message, keys: tuple[Limit, ...], *, unused: bool = False) -> None:
        """Give the keys of a delivery back, and send the next of each; the ack does not depend on it.

        Args:
            owner: the delivery's.
            message: the copy.
            keys: what it has taken.
            unused: the copy was no use. Its task may have been called: a copy that has left the hold queue by itself, or that
                RabbitMQ delivers again, came before the one that was sent, and must not use up its turn.
        """
        self.renewals.drop(owner)
        reach("key.ended")
        for key in _held(keys):
            try:
                if unused and _is_under_way(self._record(message.task_id)):
                    self._sender.send(key.name, self._keys.give_turn_back(key.name, message).unsent)
                else:
                    self._release(key.name, message)
            except StoreError as exc:
                task_log(message).warning("concurrency key not given back; it lapses", key=key.name, reason=str(exc))

    def begun(self, owner: str, keys: tuple[Limit, ...]) -> None:
        """The run of a delivery has begun; without Redis its place stays as it was taken."""
        for key in keys:
            if isinstance(key, RateLimit):
                with contextlib.suppress(StoreError):
                    self._rates.begun(key, owner)

    def refund(self, owner: str, keys: tuple[Limit, ...]) -> None:
        """Give the place in a rate of a delivery back that does not run: once, since the delivery may take another."""
        for key in keys:
            if isinstance(key, RateLimit):
                with contextlib.suppress(StoreError):
                    self._rates.refund(key, owner)

    def _release(self, name: str, message: Message) -> None:
        verdict = self._keys.release(name, message.task_id, fence_of(message.cycle, message.seq))
        reach("key.released")
        self._sender.send(name, verdict.unsent)

    def keep(self, owner: str, message: Message, keys: tuple[Limit, ...], seconds: float) -> None:
        """Hold the keys through a wait, in which no worker renews them.

        Args:
            owner: the delivery's.
            message: the next step's copy.
            keys: of the task.
            seconds: the wait.
        """
        self.renewals.drop(owner)
        for key in _held(keys):
            try:
                self._keys.keep(key, message, seconds + self._margin)
            except StoreError as exc:
                task_log(message).warning("concurrency key not kept through the wait", key=key.name, reason=str(exc))

    def held(self, key: Limit, message: Message, copy: Copy | None) -> None:
        """A task that waits has been held: if its turn has come meanwhile, its copy is sent.

        Args:
            key: what it waits for.
            message: the copy that was delivered.
            copy: what was published in its place; None when it is done, cancelled or stale.
        """
        reach("key.held")
        try:
            if copy is not None and copy.queue == names.HOLD_QUEUE:
                self._wait(key, message)
            elif copy is None or copy.queue != names.LEASE_QUEUE:
                self.settle(message, (key,))
        except StoreError as exc:
            task_log(message).warning("not listed for what it waits for", key=key.name, reason=str(exc))

    def settle(self, message: Message, keys: tuple[Limit, ...]) -> None:
        """A copy that was no use: its task may wait for a key all the same, if the worker died that had held its successor."""
        record = self._record(message.task_id)
        for key in keys:
            if record is not None and record.state is State.HELD and record.held_by == key.held_by:
                self._wait(key, message)
            elif record is None or record.state.terminal or (isinstance(key, KeyLimit) and not _is_under_way(record)):
                self._drop(key, message)  # a copy that is called, or under way, keeps its place

    def _wait(self, key: Limit, message: Message) -> None:
        if isinstance(key, RateLimit):
            self._rates.wait(key, message)
            self.keeper.look_at(key)
        else:
            self._sender.send(key.name, self._keys.wait(key, message).unsent)

    def _drop(self, key: Limit, message: Message) -> None:
        if isinstance(key, RateLimit):
            self._rates.drop(key, message.task_id)
        else:
            self._sender.send(key.name, self._keys.drop(key.name, message.task_id).unsent)


def _is_under_way(record: Record | None) -> bool:
    """Whether a copy of the task is on its way to a worker."""
    return record is not None and record.state is State.QUEUED


def _held(keys: tuple[Limit, ...]) -> tuple[KeyLimit, ...]:
    """Those that are held while a task runs."""
    return tuple(key for key in keys if isinstance(key, KeyLimit))
