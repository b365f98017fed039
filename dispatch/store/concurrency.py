"""Concurrency keys in Redis: who holds one, who waits for it, first come first served.

A key lies in a slot of its own, so it is taken before the record's claim, and given back after the record's end. A holder is a
task with a lease, which its worker renews; it is fenced by the copy that took it last, so an old copy gives nothing back.

Crash windows (what a worker leaves that dies there):

- after taking, before the claim: a holder; the redelivered copy is the same task, and goes on;
- after the end of the run, before giving back: the redelivered copy finds DONE, STALE or ROUTE, and gives back;
- after giving back, before the next one's copy is sent: that one is called and not sent; every later call for the key names it
  again, and a worker looks at each key in use every few seconds;
- after listing a waiting task, before its hold is recorded: it is called, no copy is sent, and when it has been held it is listed again.

What all of this misses is brought back by the hold queue's TTL.
"""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Sequence
from typing import Any

from dispatch.protocol.concurrency import KeyLimit, fence_of
from dispatch.protocol.message import Message
from dispatch.store.client import RedisCommand
from dispatch.store.scripts import RedisHandle

#: Seconds between two looks at a key for which tasks wait.
LOOK_INTERVAL = 2.0


class KeyAnswer(enum.StrEnum):
    """Whether a task holds a key."""

    TAKEN = "TAKEN"  #: it holds it from now on
    SAME = "SAME"  #: it held it before
    WAIT = "WAIT"  #: it does not, and is listed
    LOST = "LOST"  #: its lease had lapsed, and others hold it
    OK = "OK"


@dataclasses.dataclass(frozen=True, slots=True)
class KeyVerdict:
    """The answer, and the waiting tasks that are called and to which no copy was sent yet."""

    answer: KeyAnswer
    unsent: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class KeyView:
    """A key as an operator sees it."""

    name: str
    limit: int
    holders: tuple[tuple[str, int], ...]  #: task ids, and when each lease lapses (epoch milliseconds)
    waiting: int
    first: tuple[str, ...]  #: the first of the waiting


class ConcurrencyKeys:
    """Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: a handle.
        lease: seconds that a holder lives without being renewed, and that a called task has to come.
    """

    def __init__(self, redis: RedisHandle, *, lease: float) -> None:
        self._redis = redis
        self._lease = int(lease * 1_000)

    def take(self, key: KeyLimit, message: Message) -> KeyVerdict:
        """Take a key for a copy, or list its task among the waiting: by the time from which it may run."""
        next_look = int(time.time() * 1_000) + self._lease
        listed = self._redis.vital("ZADD", self._redis.keys.keys_in_use, "NX", next_look, key.name)
        command = self._command("take", key.name, message.task_id, limit=key.limit, message=message)
        return _verdict(self._redis.run(listed, command)[1])

    def wait(self, key: KeyLimit, message: Message) -> KeyVerdict:
        """List a task that is held by now."""
        soon = int((time.time() + LOOK_INTERVAL) * 1_000)
        listed = self._redis.vital("ZADD", self._redis.keys.keys_in_use, soon, key.name)
        command = self._command("wait", key.name, message.task_id, limit=key.limit, message=message)
        return _verdict(self._redis.run(listed, command)[1])

    def release(self, name: str, task_id: str, fence: int) -> KeyVerdict:
        """Give a key back, unless a later copy of the task has taken it."""
        return _verdict(self._redis.run(self._command("release", name, task_id, fence=fence))[0])

    def give_turn_back(self, name: str, message: Message) -> KeyVerdict:
        """Give a key back that a copy of no use has taken: the turn is its task's, whose copy is under way."""
        return _verdict(self._redis.run(self._command("return", name, message.task_id, message=message))[0])

    def renew(self, held: Sequence[tuple[KeyLimit, Message]]) -> list[tuple[str, str]]:
        """Renew the leases of a worker's tasks.

        Args:
            held: keys, and the copies that hold them. A Redis that lost its data learns the key's limit again.

        Returns:
            Names and task ids whose lease had lapsed, and whose key others hold now.
        """
        commands = [
            self._command("renew", key.name, message.task_id, limit=key.limit, message=message) for key, message in held
        ]
        answers = self._redis.gather(*commands) if commands else []
        lost = zip(held, map(_verdict, answers), strict=True)
        return [(key.name, message.task_id) for (key, message), verdict in lost if verdict.answer is KeyAnswer.LOST]

    def keep(self, key: KeyLimit, message: Message, seconds: float) -> None:
        """Hold a key through a wait.

        Args:
            key: the key.
            message: the next step's copy.
            seconds: until when no worker renews it.
        """
        lease = int(seconds * 1_000)
        self._redis.run(self._command("keep", key.name, message.task_id, limit=key.limit, message=message, lease=lease))

    def sent(self, name: str, task_id: str) -> None:
        """A copy of a called task is under way."""
        self._redis.run(self._command("sent", name, task_id))

    def drop(self, name: str, task_id: str) -> KeyVerdict:
        """A waiting task has ended."""
        return _verdict(self._redis.run(self._command("drop", name, task_id))[0])

    def look(self, name: str) -> KeyVerdict:
        """Forget what has lapsed, and call the next."""
        return _verdict(self._redis.run(self._command("look", name, ""))[0])

    def view(self, name: str, most: int = 100) -> KeyView | None:
        """A key in use; None for any other.

        Args:
            name: the key's.
            most: waiting tasks that are named.
        """
        return self.views([name], most)[0]

    def views(self, names: Sequence[str], most: int = 100) -> list[KeyView | None]:
        """The same for several, in one round trip."""
        found = [self._redis.keys.concurrency(name) for name in names]
        commands: list[RedisCommand] = [
            command
            for holders, _, waiting in found
            for command in (("HGETALL", holders), ("ZCARD", waiting), ("ZRANGE", waiting, 0, most - 1))
        ]
        answers = self._redis.gather(*commands) if commands else []
        return [_view(name, *answers[3 * at : 3 * at + 3]) for at, name in enumerate(names)]

    def in_use(self, most: int) -> list[KeyView]:
        """The keys in use, in two round trips.

        Args:
            most: keys.
        """
        return [view for view in self.views(self.names(most)) if view is not None]

    def names(self, most: int) -> list[str]:
        """The keys in use."""
        return list(self._redis.run(("ZRANGE", self._redis.keys.keys_in_use, 0, most - 1))[0])

    def waiting(self, most: int) -> int:
        """How many tasks wait, for the first `most` keys in use."""
        found = [self._redis.keys.concurrency(name)[2] for name in self.names(most)]
        return sum(map(int, self._redis.gather(*(("ZCARD", key) for key in found)))) if found else 0

    def due(self, most: int) -> list[str]:
        """The keys that a worker should look at now; others look at them later."""
        key, now = self._redis.keys.keys_in_use, time.time() * 1_000
        names = list(self._redis.run(("ZRANGEBYSCORE", key, "-inf", now, "LIMIT", 0, most))[0])
        later = int(now + LOOK_INTERVAL * 1_000)
        if names:
            self._redis.run(*(self._redis.vital("ZADD", key, "XX", later, name) for name in names))
        return names

    def looked(self, view: KeyView | None, name: str) -> None:
        """What comes of a look: the next one soon where tasks wait, after a lease where none does, none where the key is free."""
        key, now = self._redis.keys.keys_in_use, int(time.time() * 1_000)
        if view is None:
            self._redis.run(("ZREM", key, name))
            if self.view(name, 1) is not None:  # taken meanwhile
                self._redis.run(self._redis.vital("ZADD", key, "NX", now, name))
        elif not view.waiting:
            self._redis.run(self._redis.vital("ZADD", key, "XX", now + self._lease, name))

    def _command(
        self,
        op: str,
        name: str,
        task_id: str,
        *,
        limit: int = 0,
        message: Message | None = None,
        fence: int = 0,
        lease: int = 0,
    ) -> RedisCommand:
        keys = self._redis.keys.concurrency(name)
        if message is not None:
            fence = fence_of(message.cycle, message.seq)
        rank = message.due_at if message is not None else 0
        words = (op, task_id, limit, fence, rank, lease or self._lease, self._lease)
        return self._redis.script("concurrency_key", keys, *words)


def _verdict(answer: list[str]) -> KeyVerdict:
    return KeyVerdict(KeyAnswer(answer[0]), tuple(answer[1:]))


def _view(name: str, stored: Any, count: Any, first: Sequence[str]) -> KeyView | None:
    """A key in use, from its holders and those that wait; None for any other."""
    fields = stored if isinstance(stored, dict) else dict(zip(stored[::2], stored[1::2], strict=True))
    if not fields and not count:
        return None
    now = time.time() * 1_000
    held = [(task_id, int(text.partition(":")[0])) for task_id, text in fields.items() if task_id != "#limit"]
    living = tuple(sorted((task_id, lapses) for task_id, lapses in held if lapses > now))
    return KeyView(name, int(fields.get("#limit", 0)), living, int(count), tuple(first))
