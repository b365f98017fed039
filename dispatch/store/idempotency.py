"""Idempotency-Keys: reserved before anything else, confirmed with the publish, released when the task was refused."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

from dispatch.config.groups import RecordSettings
from dispatch.errors import StoreError
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle, Rider


class KeyInProgress(StoreError):
    """The first request with this Idempotency-Key is still in flight: try again later."""

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class KeyReused(StoreError):
    """The Idempotency-Key was used with another request: choose a new one."""


class KeyHeld(Exception):
    """An Idempotency-Key that was reserved together with a task's record has been used before: nothing was recorded."""

    def __init__(self, reservation: Reservation) -> None:
        super().__init__()
        self.reservation = reservation


class KeyState(enum.StrEnum):
    """What reserving an Idempotency-Key found."""

    NEW = "NEW"  #: it was free
    ADOPT = "ADOPT"  #: its first request was cut off: go on with its task id
    REPLAY = "REPLAY"  #: its task was accepted


@dataclasses.dataclass(frozen=True, slots=True)
class Reservation:
    """A reserved Idempotency-Key."""

    state: KeyState
    task_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """The task of an Idempotency-Key."""

    task_id: str
    confirmed: bool  #: it was accepted; its record may have expired since


class IdempotencyKeys:
    """The Idempotency-Keys of all principals. Thread-safe.

    Args:
        redis: the process's handle.
        settings: times to live.
    """

    def __init__(self, redis: RedisHandle, settings: RecordSettings) -> None:
        self._redis = redis
        self._ttl = int(settings.idempotency_ttl * 1_000)
        self._adopt_after = int(settings.idempotency_retry * 1_000)

    def reserve(
        self,
        principal: str,
        key: str,
        fingerprint: str,
        task_id: str,
        rider: Rider | None = None,
        *,
        delay: float = 0.0,
    ) -> Reservation:
        """Take an Idempotency-Key before anything else.

        Args:
            principal: whose key it is.
            key: as the client sent it.
            fingerprint: of the request; the same key with another one is refused.
            task_id: for a new task.
            rider: goes along.
            delay: seconds until the task may run, by which the key lives longer.

        Returns:
            What was found, and the task id to go on with.

        Raises:
            KeyReused: another request used it.
            KeyInProgress: the first one is still in flight.
            StoreUnavailable: unknown.
        """
        command = self.reservation(principal, key, fingerprint, task_id, delay=delay)
        return self.reserved(self._redis.run_along(rider, command)[0])

    def reservation(
        self, principal: str, key: str, fingerprint: str, task_id: str, *, delay: float = 0.0
    ) -> RedisCommand:
        """The command that `reserve` runs; arguments as there."""
        own, *others = self._redis.sealing.fingerprints(fingerprint)
        name, times = self._key(principal, key), (self._ttl + int(delay * 1_000), self._adopt_after)
        return self._redis.script("reserve_idempotency_key", [name], task_id, own, *times, *others)

    def reserved(self, answer: Sequence[Any]) -> Reservation:
        """What the answer to that command means; returned and raised as by `reserve`."""
        state, holder, wait = answer
        if state == "REUSED":
            raise KeyReused
        if state == "BUSY":
            raise KeyInProgress(wait / 1_000)
        return Reservation(KeyState(state), holder)

    def confirmation(self, principal: str, key: str, task_id: str) -> RedisCommand:
        """The command that makes repeats of a key replays of its accepted task."""
        return self._redis.script("confirm_idempotency_key", [self._key(principal, key)], task_id)

    def release(self, principal: str, key: str, task_id: str) -> None:
        """Free a key whose task was refused; only if that task still holds it.

        Raises:
            StoreUnavailable: unknown.
        """
        self._redis.run(self._redis.script("release_idempotency_key", [self._key(principal, key)], task_id))

    def find(self, principal: str, key: str) -> Holder | None:
        """The task that holds a key; None when the key is free.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        task_id, done = self._redis.run(("HMGET", self._key(principal, key), "task", "done"))[0]
        return None if task_id is None else Holder(task_id, done == "1")

    def _key(self, principal: str, key: str) -> str:
        return self._redis.keys.idempotency(principal, key)
