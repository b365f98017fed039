"""Hand-written stand-ins for what the gateway needs, and an application made of them."""

import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flask
import jinja2
import pydantic
from jinja2.bccache import Bucket

from dispatch.broker.queue_stats import QueueView
from dispatch.config import api_keys, settings
from dispatch.control.signalling import Signalled
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.deadletters.service import NoSuchDeadLetter
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.admission.guard import Guard
from dispatch.gateway.admission.readiness import Readiness
from dispatch.gateway.application import build
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.parts import Parts
from dispatch.protocol import ids
from dispatch.protocol.audit import Audited, AuditEntry
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.jobs import BulkJob, JobState
from dispatch.protocol.mending import AS_IT_WAS, Mend
from dispatch.protocol.message import Message
from dispatch.protocol.pauses import Pause
from dispatch.protocol.rates import RateLimit
from dispatch.protocol.record import Record, State
from dispatch.schedules.service import ScheduleService
from dispatch.store.audit import AuditPage
from dispatch.store.concurrency import KeyView
from dispatch.store.idempotency import Holder
from dispatch.store.index import Page, ScannedBatch
from dispatch.store.rates import RateView
from dispatch.store.schedules import ScheduleEntry
from dispatch.store.signals import NewSignal
from dispatch.store.task_counts import TaskCounts
from dispatch.store.workers import WorkerInfo
from dispatch.submission.submitter import Accepted, Submission
from dispatch.submission.webhooks import WebhookSubmitter
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType


class Greeting(Payload):
    """What to send."""

    message: str = pydantic.Field(max_length=10_000)
    times: int = 1
    not_before: pydantic.AwareDatetime | None = None
    tags: tuple[str, ...] = ()


def _never(order: Greeting, ctx: Any) -> dict[str, Any]:
    """The gateway runs no handler."""
    raise AssertionError((order, ctx))


GREET = TaskType("greet", Greeting, _never, None, 300.0, "Send a greeting.")
DELIVERY = TaskType("webhook.deliver", Greeting, _never, None, 45.0, "Deliver a completion webhook.", internal=True)
TIDY = TaskType("robot.tidy", Greeting, _never, ("5m",), 60.0, "Tidy up.")


def record(**changes: Any) -> Record:
    """A queued task of the local principal."""
    now = int(time.time() * 1_000)
    plain = Record(
        task_id=ids.new_task_id(),
        type="greet",
        principal=api_keys.LOCAL,
        state=State.QUEUED,
        cycle=0,
        seq=0,
        attempt=0,
        max_attempts=4,
        revision=2,
        created_at=now,
        updated_at=now,
        queue="robot.task.q",
        traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    return dataclasses.replace(plain, **changes)


class FakeMeter:
    """Counts each request by a function, with its operation where that is frequent."""

    def __init__(self, spend: Callable[[str], Mapping[str, str]]) -> None:
        self.spend = spend

    def charge(self, principal: str, *, reads: bool) -> Any:
        return FakeCharge(functools.partial(self.spend, principal)) if reads else None


class FakeCharge:
    """Asks the function when the operation comes to Redis."""

    def __init__(self, spend: Callable[[], Mapping[str, str]]) -> None:
        self._spend = spend
        self.headers: Mapping[str, str] = {}
        self.sent = False

    def command(self) -> Any:
        return ()

    def answered(self, answer: Any) -> None:
        del answer
        self.headers = self._spend()


def ride(rider: Any) -> None:
    """What a store does with a command that goes along."""
    if rider is not None:
        rider.sent = True
        rider.answered(None)


class FakeTasks:
    """Records in a dict."""

    def __init__(self, *held: Record) -> None:
        self.held = {one.task_id: one for one in held}
        self.failure: Exception | None = None
        self.waited: list[tuple[str, int, float]] = []
        self.on_wait: Callable[[], None] = lambda: None
        self.listed: dict[str, Any] = {}
        self.ordered: list[tuple[str, str, str]] = []  # verbs of control
        self.refusal: Exception | None = None  # of the next verb
        self.noted: list[tuple[str, str]] = []

    def get(self, task_id: str, rider: Any = None) -> Record | None:
        ride(rider)
        if self.failure:
            raise self.failure
        return self.held.get(task_id)

    whole = get

    def cancel(self, task_id: str, *, by: str) -> Record:
        return self._ordered("cancel", task_id, by)

    def retry_now(self, task_id: str, *, by: str) -> Record:
        return self._ordered("retry-now", task_id, by)

    def _ordered(self, verb: str, task_id: str, by: str) -> Record:
        self.ordered.append((verb, task_id, by))
        if self.refusal:
            raise self.refusal
        return self.held[task_id]

    def note(self, task_id: str, note: str) -> None:
        self.noted.append((task_id, note))

    def counts(self, principal: str | None) -> TaskCounts:
        mine = [one for one in self.held.values() if principal in (None, one.principal)]
        by_type: dict[str, Counter[str]] = {}
        for one in mine:
            by_type.setdefault(one.type, Counter())[one.state] += 1
        return TaskCounts(1_795_487_760_000, True, len(mine), by_type, {})

    def list(self, **wanted: Any) -> Page:
        self.listed = wanted
        if wanted["cursor"] == "bad":
            raise ValueError(wanted["cursor"])
        mine = [one for one in self.held.values() if wanted["principal"] in (None, one.principal)]
        return Page(mine, "more" if len(mine) > wanted["limit"] else None)

    def wait(self, task_id: str, revision: int, seconds: float, _over: Callable[[], bool]) -> Record | None:
        self.waited.append((task_id, revision, seconds))
        self.on_wait()
        return self.held.get(task_id)

    def hops(self, task_id: str) -> Any:
        return [{"seq": 0, "at": "2026-11-24T02:36:00.000Z", "kind": "accepted"}] if task_id in self.held else []


class FakeSubmitter:
    """Accepts everything, or raises its `failure`."""

    def __init__(self) -> None:
        self.submitted: list[Submission] = []
        self.failure: Exception | None = None
        self.replayed: Record | None = None
        self.keys: dict[str, str] = {}  # task ids; empty while it is not confirmed

    def find(self, principal: str, key: str) -> Holder | None:
        task_id = self.keys.get(f"{principal}:{key}")
        return None if task_id is None else Holder(task_id, confirmed=bool(task_id))

    def submit(self, submission: Submission) -> Accepted:
        ride(submission.rider)
        self.submitted.append(submission)
        if self.failure:
            raise self.failure
        if self.replayed:
            return Accepted(self.replayed, replayed=True)
        made = record(
            principal=submission.principal,
            type=submission.type.name,
            request_id=submission.request_id,
            traceparent=submission.traceparent,
            wakes_at=submission.wakes_at or None,
            state=State.DELAYED if submission.wakes_at else State.QUEUED,
            labels=submission.labels,
        )
        return Accepted(made, replayed=False)


class FakeDeadLetters:
    """Dead letters in a dict, and the bulk redrives that were asked for."""

    def __init__(self, *held: Record) -> None:
        self.held = {one.task_id: one for one in held}
        self.failure: Exception | None = None
        self.asked: list[Any] = []
        self.jobs: list[BulkRedrive] = []
        self.matching = 7
        self.most_jobs = 2
        self.batches: list[ScannedBatch] = []

    def find(self, task_id: str) -> Record:
        if task_id not in self.held:
            raise NoSuchDeadLetter
        return self.held[task_id]

    def page(self, wanted: DeadLetterFilter, *, limit: int, cursor: str | None) -> Page:
        self.asked.append((wanted, limit, cursor))
        if cursor == "bad":
            raise ValueError(cursor)
        return Page(list(self.held.values()), None)

    def scan(self, wanted: DeadLetterFilter, *, cursor: str | None = None) -> Iterator[ScannedBatch]:
        self.asked.append((wanted, cursor))
        if cursor == "bad":
            raise ValueError(cursor)
        return iter(self.batches)

    def errors_of(self, task_ids: Sequence[str]) -> list[str]:
        return [error.message if (error := self.held[each].error) else "" for each in task_ids]

    def redrivable(self, task_id: str) -> tuple[Record, Message]:
        found = self.find(task_id)
        assert found.message is not None
        return found, found.message

    def redrive(self, task_id: str, *, by: str, mend: Mend = AS_IT_WAS) -> Record:
        self.asked.append((task_id, by, mend))
        if self.failure:
            raise self.failure
        return dataclasses.replace(self.held[task_id], state=State.QUEUED, cycle=1)

    def discard(self, task_id: str, *, by: str) -> None:
        if self.failure:
            raise self.failure
        self.asked.append((task_id, by))
        self.find(task_id)
        del self.held[task_id]

    def count(self, wanted: DeadLetterFilter, *, most: int) -> int:
        self.asked.append((wanted, most))
        return min(self.matching, most)

    def add(self, bulk: BulkRedrive) -> bool:
        self.asked.append(bulk)
        if len(self.jobs) >= self.most_jobs:
            return False
        self.jobs.append(bulk)
        return True

    def all(self) -> list[BulkRedrive]:
        return self.jobs

    def stop(self, job_id: str) -> BulkRedrive | None:
        return next((bulk for bulk in self.jobs if bulk.id == job_id), None)


class FakeSignaller:
    """Keeps signals, or raises its `failure`."""

    def __init__(self, tasks: FakeTasks) -> None:
        self._tasks = tasks
        self.signals: list[tuple[str, NewSignal]] = []
        self.failure: Exception | None = None
        self.replayed = False

    def signal(self, task_id: str, signal: NewSignal) -> Signalled:
        if self.failure:
            raise self.failure
        self.signals.append((task_id, signal))
        return Signalled(self._tasks.held[task_id], self.replayed)


class FakePauses:
    """Pauses in a dict, and how many tasks each holds."""

    def __init__(self) -> None:
        self.pauses: dict[str, Pause] = {}
        self.held: dict[str, int] = {}

    def all(self) -> list[Pause]:
        return [self.pauses[what] for what in sorted(self.pauses)]

    def put(self, pause: Pause) -> None:
        self.pauses[pause.what] = pause

    def remove(self, what: str) -> bool:
        return self.pauses.pop(what, None) is not None

    def counts(self, holders: Iterable[str]) -> dict[str, int]:
        return {what: self.held.get(what, 0) for what in holders}


class FakeKeys:
    """Concurrency keys in a dict."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyView] = {}

    def in_use(self, most: int) -> list[KeyView]:
        return [*self.keys.values()][:most]

    def view(self, name: str) -> KeyView | None:
        return self.keys.get(name)


class FakeRates:
    """Rates that nothing uses, but those in a dict."""

    def __init__(self) -> None:
        self.rates: dict[str, RateView] = {}

    def view(self, limit: RateLimit) -> RateView:
        return self.rates.get(limit.name, RateView(limit.name, limit.rate, 0, 0, ()))


class FakeJobs:
    """Jobs in a dict."""

    def __init__(self) -> None:
        self.held: dict[str, BulkJob] = {}
        self.room = True
        self.matching = (7, True)

    def add(self, job: BulkJob) -> bool:
        if self.room:
            self.held[job.id] = job
        return self.room

    def get(self, job_id: str) -> BulkJob | None:
        return self.held.get(job_id)

    def all(self) -> list[BulkJob]:
        return list(self.held.values())

    def stop(self, job: BulkJob, reason: str) -> bool:
        if job.state is not JobState.RUNNING:
            return False
        self.held[job.id] = dataclasses.replace(job, state=JobState.STOPPED, reason=reason)
        return True

    def count(self, _job: BulkJob, _seconds: float) -> tuple[int, bool]:
        return self.matching


class FakeAudit:
    """The audit log in a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def add(self, entry: AuditEntry) -> bool:
        self.entries.append(entry)
        return True

    def page(self, *, principal: str | None, verb: str | None, limit: int, cursor: str | None) -> AuditPage:
        if cursor == "bad":
            raise ValueError(cursor)
        chosen = [one for one in self.entries if principal in (None, one.principal) and verb in (None, one.verb)]
        return AuditPage([Audited(f"{at}-0", one) for at, one in enumerate(chosen[:limit], 1_795_487_760_000)], None)


class FakeScheduleStore:
    """Schedules in memory."""

    def __init__(self):
        self.entries: dict[str, ScheduleEntry] = {}

    def get(self, name):
        return self.entries.get(name)

    def all(self):
        return [self.entries[name] for name in sorted(self.entries) if self.entries[name].schedule is not None]

    def count(self):
        return len(self.all())

    def set(self, schedule, *, was, next_at, fresh=False):
        entry = self.entries.get(schedule.name)
        if (entry.revision if entry else 0) != was:
            return False
        counts = (0, None, None, 0, 0, 0) if fresh or entry is None else dataclasses.astuple(entry)[6:12]
        self.entries[schedule.name] = ScheduleEntry(
            schedule.revision, schedule, schedule.principal, next_at, None, 0, *counts, ""
        )
        return True

    def delete(self, name, principal, was):
        entry = self.entries[name]
        if entry.revision != was:
            return False
        self.entries[name] = dataclasses.replace(entry, schedule=None, revision=was + 1, principal=principal)
        return True

    def waits(self, name, tick, _next_at):
        self.entries[name] = dataclasses.replace(self.entries[name], tick=tick)


class FakeTicks:
    """Waits that are submitted; `error` is raised instead."""

    def __init__(self):
        self.submitted: list[tuple[str, int]] = []
        self.error: Exception | None = None

    def submit(self, schedule, at, *, leg=0):
        if self.error is not None:
            raise self.error
        self.submitted.append((schedule.name, at))
        return schedule.tick_id(at, leg)


class FakeViews:
    """Saved views in memory."""

    def __init__(self) -> None:
        self.saved: dict[tuple[str, str], str] = {}

    def all(self, principal: str) -> dict[str, str]:
        return {name: query for (whose, name), query in sorted(self.saved.items()) if whose == principal}

    def put(self, principal: str, name: str, query: str) -> bool:
        self.saved[principal, name] = query
        return len(self.all(principal)) <= 50

    def remove(self, principal: str, name: str) -> bool:
        return self.saved.pop((principal, name), None) is not None


class FakeHistory:
    """Minutes in memory."""

    def __init__(self) -> None:
        self.minutes: dict[int, dict[str, int]] = {}

    def read(self, first: int, last: int) -> list[dict[str, int]]:
        return [self.minutes.get(each, {}) for each in range(first, last + 1)]


class FakeEndedSessions:
    """Sessions that were ended; `error` is raised instead."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.error: Exception | None = None

    def add(self, session: str, seconds: float) -> None:
        assert seconds > 0
        if self.error is not None:
            raise self.error
        self.ended.add(session)

    def has(self, session: str) -> bool:
        if self.error is not None:
            raise self.error
        return session in self.ended


class _Compiled(jinja2.BytecodeCache):
    """Templates that are compiled once for all applications of this process."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if (code := self._codes.get(bucket.key)) is not None:
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()


@dataclasses.dataclass
class World:
    """An application and what it is made of."""

    tasks: FakeTasks = dataclasses.field(default_factory=FakeTasks)
    submitter: FakeSubmitter = dataclasses.field(default_factory=FakeSubmitter)
    dead_letters: FakeDeadLetters = dataclasses.field(default_factory=FakeDeadLetters)
    schedules: FakeScheduleStore = dataclasses.field(default_factory=FakeScheduleStore)
    ticks: FakeTicks = dataclasses.field(default_factory=FakeTicks)
    jobs: FakeJobs = dataclasses.field(default_factory=FakeJobs)
    audit: FakeAudit = dataclasses.field(default_factory=FakeAudit)
    pauses: FakePauses = dataclasses.field(default_factory=FakePauses)
    signaller: FakeSignaller = dataclasses.field(init=False)
    concurrency: FakeKeys = dataclasses.field(default_factory=FakeKeys)
    rates: FakeRates = dataclasses.field(default_factory=FakeRates)
    guard: Guard = dataclasses.field(default_factory=lambda: Guard(100))
    checks: dict[str, Callable[[], str | None]] = dataclasses.field(
        default_factory=lambda: {"broker": lambda: None, "store": lambda: None}
    )
    spend: Callable[[str], Mapping[str, str]] = lambda _: {}
    allowance: Callable[[str], Allowance] = lambda _: Allowance()
    queues: Callable[[], list[QueueView]] = list
    ages: Callable[[], Mapping[str, float]] = dict
    views: FakeViews = dataclasses.field(default_factory=FakeViews)
    history: FakeHistory = dataclasses.field(default_factory=FakeHistory)
    ended_sessions: FakeEndedSessions = dataclasses.field(default_factory=FakeEndedSessions)
    workers: Callable[[], list[WorkerInfo]] = list
    types: Mapping[str, TaskType] = dataclasses.field(default_factory=lambda: {"greet": GREET, "robot.tidy": TIDY})
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    keys: KeySource | None = None

    def __post_init__(self) -> None:
        self.signaller = FakeSignaller(self.tasks)

    def app(self) -> flask.Flask:
        """The application."""
        chosen = settings.load({}, **self.options)
        made = build(
            Parts(
                settings=chosen,
                keys=self.keys or KeySource.from_settings(chosen),
                types=self.types,
                tasks=self.tasks,
                counts=self.tasks.counts,
                submitter=self.submitter,
                webhooks=WebhookSubmitter(self.submitter, self.tasks, {**self.types, DELIVERY.name: DELIVERY}),
                ladders=Ladders.of_types(chosen.ladder, self.types.values()),
                idempotency=self.submitter,
                signaller=self.signaller,
                schedules=ScheduleService(self.schedules, self.ticks, self.submitter),
                control=self.tasks,
                dead_letters=self.dead_letters,
                bulk=self.dead_letters,
                jobs=self.jobs,
                audit=self.audit,
                pauses=self.pauses,
                held=self.pauses,
                concurrency=self.concurrency,
                rates=self.rates,
                guard=self.guard,
                meter=FakeMeter(self.spend),
                allowance=self.allowance,
                readiness=Readiness(self.checks),
                queues=self.queues,
                workers=self.workers,
                ended_sessions=self.ended_sessions,
                ages=self.ages,
                history=self.history,
                views=self.views,
            )
        )
        made.jinja_env.bytecode_cache = _COMPILED
        return made

    def client(self) -> Any:
        """A client of it."""
        return self.app().test_client()


def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    """Check that an answer is that problem, whole; returns its body."""
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.data
    body = answer.get_json()
    assert body["type"] == f"/problems/{slug}"
    assert {"type", "title", "status", "detail", "instance", "requestId", "traceId"} <= set(body)
    assert body["status"] == status
    assert answer.headers["X-Request-Id"] == body["requestId"]
    return body
