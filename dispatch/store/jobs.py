"""The jobs in Redis: each a hash, and their list by time; the tasks that a job is for; whose turn it is to carry jobs out.

Crash windows: a job's hash is written before its entry in the list, so one that is cut off in between is never carried out,
and its client has had no answer; it expires by itself. The place of a job is recorded after each task: a worker that dies in
between does the verb to that task once more, which changes nothing, and may count it twice.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from typing import Any

from dispatch.protocol.jobs import KEPT, MOST_RUNNING, BulkJob, stop_fields
from dispatch.protocol.record import Brief, Record
from dispatch.protocol.record_fields import FOUND
from dispatch.store import finding, index
from dispatch.store.index import Page
from dispatch.store.scripts import RedisHandle

#: Milliseconds for which a worker's turn lasts unless it is renewed.
TURN = 30_000

#: Tasks of a page.
PAGE = 50


class Jobs:
    """The jobs. Thread-safe; each method raises `StoreUnavailable`.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def add(self, job: BulkJob) -> bool:
        """Have the workers carry a job out; False when `MOST_RUNNING` run already."""
        if sum(one.running for one in self.all()) >= MOST_RUNNING:
            return False
        keys = self._redis.keys
        self._redis.run(("HSET", keys.job(job.id), *job.fields()), ("ZADD", keys.jobs, job.created_at, job.id))
        return True

    def get(self, job_id: str) -> BulkJob | None:
        """One job; None when there is none (any more)."""
        return BulkJob.parse(_pairs(self._redis.run(("HGETALL", self._redis.keys.job(job_id)))[0]))

    def all(self) -> list[BulkJob]:
        """Every job, newest first; entries of those that have expired are dropped."""
        keys = self._redis.keys
        ids = self._redis.run(("ZRANGE", keys.jobs, 0, -1))[0][::-1]
        found = self._redis.gather(*(("HGETALL", keys.job(one)) for one in ids)) if ids else []
        jobs = [BulkJob.parse(_pairs(fields)) for fields in found]
        gone = [job_id for job_id, job in zip(ids, jobs, strict=True) if job is None]
        if gone:
            self._redis.run(("ZREM", keys.jobs, *gone))
        return [job for job in jobs if job is not None]

    def write(self, job: BulkJob) -> bool:
        """Record how far a job is, or that it has ended; False when it had ended before."""
        kept = 0 if job.running else KEPT
        command = self._redis.script("write_job", [self._redis.keys.job(job.id)], kept, *job.fields())
        return bool(self._redis.run(command)[0])

    def stop(self, job: BulkJob, reason: str) -> bool:
        """Stop a job: what it has done stays done; False when it had ended before."""
        fields = stop_fields(reason, int(time.time() * 1_000))
        command = self._redis.script("write_job", [self._redis.keys.job(job.id)], KEPT, *fields)
        return bool(self._redis.run(command)[0])

    def take_turn(self, token: str) -> bool:
        """Whether this worker is the one that carries jobs out, for `TURN` from now on."""
        key = self._redis.keys.jobs_turn
        if self._redis.run(("SET", key, token, "NX", "PX", TURN))[0]:
            return True
        if self._redis.run(("GET", key))[0] != token:
            return False
        # Lapsed in between, it is taken anew or by another worker: two may act for a moment, and no verb acts twice.
        return bool(self._redis.run(("PEXPIRE", key, TURN))[0])

    def page(self, job: BulkJob) -> Page:
        """The tasks that a job is for, from its cursor on; it may have passed over many to find few."""
        cursor, wanted = job.cursor or None, job.filter
        if not job.verb.for_dead_letters:
            found = finding.page(self._redis, wanted, limit=PAGE, cursor=cursor)
        else:
            keys = self._redis.keys

            def chosen(brief: Brief) -> bool:
                return brief.is_dead_letter and wanted.matches(brief)

            found = index.read_page(self._redis, keys.dead, chosen, limit=PAGE, cursor=cursor, names=FOUND)
        items = [
            record
            for record in found.items
            if job.verb.applies(record) and wanted.principal in (None, record.principal)
        ]
        return Page(items, found.next)

    def count(self, job: BulkJob, seconds: float) -> tuple[int, bool]:
        """How many tasks a job would take now.

        Args:
            job: not started; its limit ends the count.
            seconds: to count at most.

        Returns:
            The number, and whether it is all.
        """
        until = time.monotonic() + seconds
        found = list(itertools.islice(self._walk(job, until), job.limit))
        return sum(record is not None for record in found), None not in found

    def _walk(self, job: BulkJob, until: float) -> Iterator[Record | None]:
        """Every task; None at the end of the time."""
        while True:
            page = self.page(job)
            yield from page.items
            if page.next is None:
                return
            if time.monotonic() >= until:
                yield None
                return
            job = dataclasses.replace(job, cursor=page.next)


def _pairs(answer: Any) -> dict[str, str]:
    """A hash: RESP2 has a flat list, RESP3 a map."""
    return dict(answer) if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
