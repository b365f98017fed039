"""What a process of the pool does: it takes jobs from its pipe, runs each, and reports each at once.

Several jobs may come in one write. For each, the main process has put a permit into the process's semaphore, and the process
takes one before it begins a job; so the main process takes back jobs that have not begun by taking their permits. These are
the last ones, so a job without a permit is followed by none that has one.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from billiard.common import terminate_handler_fired
from billiard.compat import mem_rss
from billiard.einfo import ExceptionInfo
from billiard.pool import EX_FAILURE, EX_OK, EX_RECYCLE, READY, MaybeEncodingError
from billiard.reduction import ForkingPickler
from celery.concurrency import asynpool

from dispatch.worker import tracer

#: What a process reports beside billiard's own: how many jobs it found to be taken back.
DROPPED = 16

#: The size before each message of a pipe, and bytes that are read at once.
SIZE, READ = struct.Struct(">i"), 65_536


def framed(data: bytes) -> bytes:
    """A message as it is on a pipe."""
    return SIZE.pack(len(data)) + data


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole messages, and the beginning of the next one."""
    messages, at = [], 0
    while len(data) - at >= SIZE.size:
        end = at + SIZE.size + SIZE.unpack_from(data, at)[0]
        if len(data) < end:
            break
        messages.append(data[at + SIZE.size : end])
        at = end
    return messages, data[at:]


class Worker(asynpool.Worker):
    """Celery's process, with batches of jobs and without a report that a job has begun."""

    permits: Any = None  #: a semaphore that the process shares with the main one

    def workloop(self, *_: Any, pid: int | None = None, **__: Any) -> int:
        """Run jobs until the main process wants no more of them."""
        done = 0
        for jobs in self._batches():
            dropped = 0
            for number, args in jobs:
                if dropped or not self.permits.acquire(False):
                    dropped += 1
                    continue
                self._run(number, args)
                done += 1
                if self._is_worn_out(done):
                    return int(EX_RECYCLE)
            if dropped:
                self._report((DROPPED, (pid or os.getpid(), dropped)))
        return int(EX_OK)

    def _batches(self) -> Iterator[Sequence[tuple[int, Any]]]:
        fd, data = self.inq._reader.fileno(), b""  # noqa: SLF001 - billiard's
        while read := os.read(fd, READ):
            messages, data = split(data + read)
            for message in messages:
                jobs = pickle.loads(message)  # noqa: S301 - from the main process
                if jobs is None:
                    raise SystemExit(EX_FAILURE)
                yield jobs
        raise SystemExit(EX_FAILURE)

    def _run(self, number: int, args: Any) -> None:
        leaves: BaseException | None = None
        try:
            outcome = (True, tracer.trace(*args))
        except BaseException as exc:
            if (
                terminate_handler_fired()
            ):  # it is being ended: the job is lost with it, whatever its own clean-up raises
                raise
            outcome = (False, ExceptionInfo())
            if isinstance(exc, SystemExit | KeyboardInterrupt):  # the job's own: reported, and then the process ends
                leaves = exc
        try:
            self._report((READY, (number, None, outcome, None)))
        except Exception as exc:  # noqa: BLE001 - billiard's way: what can't be pickled is reported as an error
            wrapped = MaybeEncodingError(exc, outcome[1])
            info = ExceptionInfo((MaybeEncodingError, wrapped, sys.exc_info()[2]))
            self._report((READY, (number, None, (False, info), None)))
        if leaves is not None:
            raise leaves

    def _report(self, report: tuple[int, Any]) -> None:
        try:
            data = pickle.dumps(report, pickle.HIGHEST_PROTOCOL)
        except Exception:  # noqa: BLE001 - billiard knows how to pickle more
            data = bytes(ForkingPickler.dumps(report))
        left = memoryview(framed(data))
        fd = self.outq._writer.fileno()  # noqa: SLF001 - billiard's
        while left:
            left = left[os.write(fd, left) :]

    def _is_worn_out(self, done: int) -> bool:
        if self.maxtasks and done >= self.maxtasks:
            return True
        return bool(self.max_memory_per_child and mem_rss() > self.max_memory_per_child)
