"""What Redis has acknowledged and may not have on its disk yet, kept by this process, to be repeated where Redis has lost it.

With ``appendfsync everysec`` Redis syncs its file once a second; while a sync takes long, it holds back what it would write for up to
two seconds (`flushAppendOnlyFile` in Redis's aof.c). A ``kill -9`` loses that as the death of the machine does, and a failover loses
what was not replicated. After most transitions something comes again that mends the record: a copy, a redelivery, the sweeper. After
three nothing does for as long as a queue holds messages, and their stores note them here:

- a completed run: its copy is acked;
- a confirmed publish: the sweeper would reject the task as never published;
- a dead letter's record: the recorder's copy is acked.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable

#: Does one of them once more, which changes nothing where Redis has it; may answer `LATER`.
Repeat = Callable[[], object]

#: The answer of a repeat that has to be tried again: a worker still holds the task's lease.
LATER = object()

#: Seconds for which they are kept while Redis answers: what it may lose, and as long again to notice it.
KEPT = 5.0

#: Bytes that are kept at most; then the oldest are dropped.
MOST = 12_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Kept:
    at: float  #: of `time.monotonic`
    size: int
    repeat: Repeat


class Unsynced:
    """Of one handle. Thread-safe."""

    def __init__(self) -> None:
        self.wanted = False  #: whether this process repeats them: `dispatch.maintenance.restart_watch`
        self.failures = 0  #: times that Redis did not answer: from then on all is kept, until `checked`
        self._checked = 0
        self._kept: collections.deque[_Kept] = collections.deque()
        self._size = 0
        self._lock = threading.Lock()

    def note(self, repeat: Repeat, size: int) -> None:
        """Redis has acknowledged transitions.

        Args:
            repeat: does them again.
            size: bytes that this keeps.
        """
        now = time.monotonic()
        with self._lock:
            self._kept.append(_Kept(now, size, repeat))
            self._size += size
            self._drop(now)

    def failed(self) -> None:
        """Redis did not answer; it may come back without its last seconds."""
        self.failures += 1

    def checked(self, failures: int) -> None:
        """What it had then is still there, or was repeated.

        Args:
            failures: before the check began: one that came meanwhile is to be checked yet.
        """
        with self._lock:
            self._checked = failures
            self._drop(time.monotonic())

    def repeats(self) -> list[Repeat]:
        """All that are kept, in their order."""
        with self._lock:
            return [each.repeat for each in self._kept]

    def _drop(self, now: float) -> None:
        known = self._checked == self.failures
        while self._kept and (self._size > MOST or (known and self._kept[0].at < now - KEPT)):
            self._size -= self._kept.popleft().size
