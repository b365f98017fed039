"""The names of our Redis keys; ``robot:`` stands for the prefix setting.

The braces are literal: they make all keys of one task share a Redis Cluster slot.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class TaskKeys(NamedTuple):
    """The keys of one task, in the order in which the scripts of ``lua/task`` take them."""

    record: str  #: ``robot:task:{<id>}``, a hash; also the channel on which its changes are published
    lease: str  #: ``robot:claim:{<id>}``: the owner of the run
    hops: str  #: ``robot:hops:{<id>}``, a list of JSON objects
    message: str  #: ``robot:message:{<id>}``: the message as accepted, while it may have to be sent again


@dataclasses.dataclass(frozen=True, slots=True)
class RedisKeys:
    """Every key, below one prefix."""

    prefix: str

    def task(self, task_id: str) -> TaskKeys:
        """The keys of a task."""
        start, end = self.prefix, f":{{{task_id}}}"
        return TaskKeys(f"{start}task{end}", f"{start}claim{end}", f"{start}hops{end}", f"{start}message{end}")

    def idempotency(self, principal: str, key: str) -> str:
        """``robot:idem:<principal>:<key>``, a hash: task id and fingerprint of an Idempotency-Key."""
        return f"{self.prefix}idem:{principal}:{key}"

    def rate(self, principal: str) -> str:
        """``robot:rate:<principal>``: when its share of requests will be whole again (epoch milliseconds)."""
        return f"{self.prefix}rate:{principal}"

    def usage(self, principal: str) -> str:
        """``robot:usage:<principal>``, a hash: what each of its tasks holds, and the sums."""
        return f"{self.prefix}usage:{principal}"

    def key_used(self, fingerprint: str) -> str:
        """``robot:key-used:<fingerprint>``: when an API key was last used (epoch seconds)."""
        return f"{self.prefix}key-used:{fingerprint}"

    def ended_session(self, session: str) -> str:
        """``robot:ended-session:<id>``: a session of the console was ended before its time."""
        return f"{self.prefix}ended-session:{session}"

    def views(self, principal: str) -> str:
        """``robot:views:<principal>``, a hash: its saved views of the console, by name."""
        return f"{self.prefix}views:{principal}"

    def history(self, minute: int) -> str:
        """``robot:history:<epoch minute>``, a hash: what the workers did in it."""
        return f"{self.prefix}history:{minute}"

    def index(self, principal: str | None) -> str:
        """``robot:index`` or ``robot:index:<principal>``: task ids by the time they were accepted."""
        return f"{self.prefix}index" if principal is None else f"{self.prefix}index:{principal}"

    def label(self, principal: str | None, pair: str) -> str:
        """``robot:label:<key>=<value>`` or ``robot:label:<principal>:<key>=<value>``: task ids as in `index`."""
        return f"{self.prefix}label:{pair}" if principal is None else f"{self.prefix}label:{principal}:{pair}"

    def request(self, principal: str | None, request_id: str) -> str:
        """``robot:request:<id>`` or ``robot:request:<principal>:<id>``: task ids by a request id of the client's own."""
        return f"{self.prefix}request:{request_id if principal is None else f'{principal}:{request_id}'}"

    def children(self, task_id: str) -> str:
        """``robot:children:<id>``: the ids of the tasks that a task's handler submitted, as in `index`."""
        return f"{self.prefix}children:{task_id}"

    def submitted(self, task_id: str) -> str:
        """``robot:submitted:<id>``, a hash: what a task's handler has submitted, so that a repeated step submits nothing twice."""
        return f"{self.prefix}submitted:{task_id}"

    def schedule(self, name: str) -> str:
        """``robot:schedule:<name>``, a hash: a schedule, and what has become of its due times."""
        return f"{self.prefix}schedule:{name}"

    @property
    def schedules(self) -> str:
        """``robot:schedules``: names of schedules by when their due time should have been handled (epoch milliseconds)."""
        return f"{self.prefix}schedules"

    @property
    def probe(self) -> str:
        """``robot:probe``: what readiness writes, to see whether Redis takes a write."""
        return f"{self.prefix}probe"

    @property
    def workers(self) -> str:
        """``robot:workers``, a hash: the last heartbeat of each worker, by its name."""
        return f"{self.prefix}workers"

    @property
    def due(self) -> str:
        """``robot:due``: the task ids that the sweeper must check, by when (epoch seconds)."""
        return f"{self.prefix}due"

    @property
    def waiting(self) -> str:
        """``robot:waiting``: task ids by since when they can have been in the work queue (epoch milliseconds)."""
        return f"{self.prefix}waiting"

    @property
    def dead(self) -> str:
        """``robot:dead``: the task ids of dead letters by the time of their death (epoch milliseconds)."""
        return f"{self.prefix}dead"

    @property
    def stale(self) -> str:
        """``robot:dead:stale``: task ids whose dead letters may have to leave the DLQ, by how often they were flagged."""
        return f"{self.prefix}dead:stale"

    @property
    def recorded(self) -> str:
        """``robot:dead:known``: ``yes`` while every dead letter has its record; gone when Redis has lost its data."""
        return f"{self.prefix}dead:known"

    @property
    def walk(self) -> str:
        """``robot:dead:walk``: who walks through the DLQ now."""
        return f"{self.prefix}dead:walk"

    @property
    def pauses(self) -> str:
        """``robot:pauses``, a hash: what is paused, and why."""
        return f"{self.prefix}pauses"

    @property
    def held(self) -> str:
        """``robot:held``: what holds tasks, by when it held the last one (epoch milliseconds)."""
        return f"{self.prefix}held"

    def held_by(self, what: str) -> str:
        """``robot:held:<what>``: task ids by when they were held (epoch milliseconds)."""
        return f"{self.prefix}held:{what}"

    @property
    def keys_in_use(self) -> str:
        """``robot:keys``: the concurrency keys in use, by when a worker looks at them next (epoch milliseconds)."""
        return f"{self.prefix}keys"

    def concurrency(self, name: str) -> tuple[str, str, str]:
        """``robot:key:{<name>}``, ``robot:key:called:{<name>}``, ``robot:key:waiting:{<name>}``: who holds a key, is called, waits."""
        # One that begins with a brace would make an empty hash tag, and three keys of three cluster slots.
        start, end = f"{self.prefix}key:", f"{{{name.replace('%', '%25').replace('}', '%7D')}}}"
        return f"{start}{end}", f"{start}called:{end}", f"{start}waiting:{end}"

    def begun(self, task_type: str) -> tuple[str, str, str]:
        """``robot:begun:{<type>}``, ``robot:begun:called:{<type>}``, ``robot:begun:waiting:{<type>}``: a rate's runs, the called, the waiting."""
        start, end = f"{self.prefix}begun:", f"{{{task_type}}}"
        return f"{start}{end}", f"{start}called:{end}", f"{start}waiting:{end}"

    @property
    def resuming(self) -> str:
        """``robot:resuming``: which worker sends what was held."""
        return f"{self.prefix}resuming"

    @property
    def audit(self) -> str:
        """``robot:audit``, a stream: what operators did."""
        return f"{self.prefix}audit"

    def job(self, job_id: str) -> str:
        """``robot:job:<id>``, a hash: a job, and how far it is."""
        return f"{self.prefix}job:{job_id}"

    @property
    def jobs(self) -> str:
        """``robot:jobs``: ids of jobs by the time at which they were requested (epoch milliseconds)."""
        return f"{self.prefix}jobs"

    @property
    def jobs_turn(self) -> str:
        """``robot:jobs:turn``: which worker carries jobs out now."""
        return f"{self.prefix}jobs:turn"

    @property
    def bulk_redrives(self) -> str:
        """``robot:dead:jobs``, a list: the bulk redrives that operators have requested."""
        return f"{self.prefix}dead:jobs"
