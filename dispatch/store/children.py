"""What a task's handler has submitted: noted before and after each submission, so that a repeated step submits nothing twice.

A hash for each task that submits has an entry for each key that its handler used. The entry's name is the id that is derived from
task, cycle and key; its value the id that the child has, and whether it was accepted. The two ids differ where the broker refused
the first submission: a refused id never runs, so the next one is derived from it.

Crash windows:

- after `reserve`, before the child's record: the repeated step goes on with the same id;
- after the record or the publish, before `confirm`: the repeated step finds the record, and goes on from there;
- after `confirm`: the repeated step submits nothing, however long ago the child ended.
"""

from __future__ import annotations

import dataclasses

from dispatch.store.scripts import RedisHandle

#: Milliseconds of a day.
DAY = 86_400_000

#: Milliseconds after a task's last submission for which its entries are kept: no step is repeated so late.
KEPT = 30 * DAY


@dataclasses.dataclass(frozen=True, slots=True)
class ChildEntry:
    """What a handler has submitted under a key."""

    task_id: str  #: the child's
    accepted: bool = False  #: it needs no submission any more

    def __str__(self) -> str:
        return f"{self.task_id} {int(self.accepted)}"

    @classmethod
    def parse(cls, text: str) -> ChildEntry:
        """The inverse of `str`."""
        task_id, _, accepted = text.partition(" ")
        return cls(task_id, accepted == "1")


class ChildEntries:
    """The entries of all tasks. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def reserve(self, family: str, first_id: str, kept: int = KEPT) -> tuple[ChildEntry, bool]:
        """Note what is about to be submitted, or find what was.

        Args:
            family: the task whose handler submits, or another name of what submits.
            first_id: derived from that task, its cycle and the key.
            kept: milliseconds for which the family's entries are kept from now on.

        Returns:
            The entry, and whether it is new.

        Raises:
            StoreUnavailable: unknown; reserve it again.
        """
        key = self._redis.keys.submitted(family)
        new, entry, _ = self._redis.run(
            ("HSETNX", key, first_id, str(ChildEntry(first_id))), ("HGET", key, first_id), ("PEXPIRE", key, kept)
        )
        return ChildEntry.parse(entry), bool(new)

    def advance(self, family: str, first_id: str, was: ChildEntry, becomes: ChildEntry, kept: int = KEPT) -> ChildEntry:
        """Change an entry.

        Args:
            family: see `reserve`.
            first_id: the entry's name.
            was: as it was read.
            becomes: the accepted child, or the next id after one that was refused.
            kept: see `reserve`.

        Returns:
            What it is now: another run of the same step may have been faster.

        Raises:
            StoreUnavailable: unknown; the repeated step finds out.
        """
        key = self._redis.keys.submitted(family)
        command = self._redis.script("advance_child", [key], first_id, str(was), str(becomes), kept)
        return ChildEntry.parse(self._redis.run(command)[0])
