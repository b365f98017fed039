"""What a run has seen, as plain data that fits into a JSON file. Times are epoch seconds unless stated otherwise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Order:
    """What a client ordered."""

    label: str  #: unique; travels in the payload and begins every X-Request-Id of the order
    kind: str  #: see `orders.KINDS`
    key: str | None  #: Idempotency-Key
    type: str  #: task type
    payload: dict[str, Any]
    delay: int = 0  #: seconds for which it is submitted for later
    options: dict[str, Any] = dataclasses.field(
        default_factory=dict
    )  #: others: deadline, concurrency key, webhook, labels

    @property
    def in_ledger(self) -> bool:
        """Whether its effect lands in the ledger."""
        return self.type != "echo"

    @property
    def wish(self) -> dict[str, Any]:
        """How the ledger answers."""
        return self.payload.get("json") or self.payload.get("wish") or {}

    @property
    def rate(self) -> tuple[str, int, float] | None:
        """Of which type's runs how many may begin in any so many seconds."""
        return ("rate:chaos.paced", 2, 1.0) if self.type == "chaos.paced" else None

    @property
    def slot(self) -> tuple[str, int] | None:
        """What it takes one of several places of while it runs: a key, or its type; and how many there are."""
        if self.type == "chaos.narrow":
            return "max_running:chaos.narrow", 2
        robot = self.payload.get("robot") or self.options.get("concurrencyKey")
        return (robot, 1) if robot else None


@dataclasses.dataclass(frozen=True)
class Answer:
    """One HTTP exchange, as the client saw it."""

    label: str  #: of the order; empty for reads
    what: str  #: method and kind of path
    at: float
    seconds: float
    status: int | None = None  #: None: no answer
    problem: str = ""  #: the slug
    task_id: str = ""
    error: str = ""  #: the transport error's name
    unsent: bool = False  #: no connection: provably never sent


@dataclasses.dataclass(frozen=True)
class Fault:
    """One entry of the schedule."""

    at: float  #: seconds after the start
    name: str
    target: str
    seconds: float = 0.0  #: how long it lasts; 0: it is over at once
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class Happened:
    """A fault, carried out."""

    fault: Fault
    began: float
    ended: float
    missed: str = ""  #: why nothing was broken


@dataclasses.dataclass(frozen=True)
class Delivery:
    """One request that reached the ledger."""

    key: str  #: the Idempotency-Key it came with: the task id
    label: str
    began: float
    ended: float | None
    outcome: str  #: ``applied``, ``repeat``, ``failed``, ``refused``, or ``begun``
    note: dict[str, Any] = dataclasses.field(default_factory=dict)  #: what the handler saw

    @property
    def task_id(self) -> str:
        """Whose effect it is: a key begins with its task's id."""
        return self.key.partition("/")[0].partition(".")[0]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task in the end: as the API shows it, its hops, and what its record holds beside."""

    id: str
    view: dict[str, Any]
    hops: list[dict[str, Any]]
    inner: dict[str, str]  #: raw fields that a terminal record must not have any more


@dataclasses.dataclass(frozen=True)
class DeadLetter:
    """A message in the DLQ in the end."""

    task_id: str
    cycle: int
    seq: int
    reason: str
    mark: str = ""  #: of a poison message


@dataclasses.dataclass(frozen=True)
class Poison:
    """A message that was thrown into the work queue and confirmed."""

    mark: str
    reason: str  #: that its dead letter must have


@dataclasses.dataclass(frozen=True)
class Act:
    """A verb that a client or an operator has used."""

    verb: str  #: the operationId
    target: str  #: a task id, or the name of a pause, a schedule or a job
    at: float  #: when it was sent
    ended: float  #: when it was answered
    status: int | None  #: None: no answer
    request_id: str = ""
    problem: str = ""
    asked: dict[str, Any] = dataclasses.field(default_factory=dict)  #: what matters of the request
    answer: dict[str, Any] = dataclasses.field(default_factory=dict)  #: what matters of the answer

    @property
    def done(self) -> bool:
        """Whether it was carried out for certain."""
        return self.status is not None and self.status < 300

    @property
    def possible(self) -> bool:
        """Whether it may have been carried out: a server's error and silence leave that open."""
        return self.status is None or self.status < 300 or self.status >= 500


@dataclasses.dataclass(frozen=True)
class Hook:
    """A delivery of a webhook."""

    event: str  #: ``webhook-id``
    task: str
    cycle: int
    type: str
    at: float
    status: int  #: that the receiver answered


@dataclasses.dataclass(frozen=True)
class Call:
    """A callback, at its end."""

    key: str  #: of the effect that it follows
    signal: str  #: id of its payload
    at: float
    status: int  #: 0: never answered


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left in the system in the end."""

    queues: dict[str, int]  #: messages, ready and unacked, by queue
    claims: list[str]  #: task ids with a living lease
    due: list[str]  #: task ids that the sweeper will look at
    stale: list[str]  #: task ids whose dead letters should have left the DLQ
    indexed: int  #: tasks in the index
    drained: bool
    seconds: float  #: from the last fault's end, or the last order, until all was quiet
    limit: float  #: seconds that it may take
    restarts: dict[str, int]  #: by process, by the supervisor
    listed: list[str] = dataclasses.field(default_factory=list)  #: task ids that the API shows as dead letters
    held: list[str] = dataclasses.field(default_factory=list)  #: what holds tasks, by its list
    keys: list[str] = dataclasses.field(default_factory=list)  #: concurrency keys that are taken
    pauses: list[str] = dataclasses.field(default_factory=list)  #: what is paused
    jobs: list[str] = dataclasses.field(default_factory=list)  #: ids of jobs that run


@dataclasses.dataclass(frozen=True)
class Sample:
    """Memory of a process."""

    at: float
    role: str
    pid: int
    rss: int  #: kB
    tasks: int  #: accepted so far


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything about a run."""

    seed: int
    duration: float
    clients: int
    settings: dict[str, str]
    ladder: list[tuple[str, float]]  #: queue and seconds
    answer_within: float  #: seconds
    orders: list[Order]
    answers: list[Answer]
    faults: list[Happened]
    deliveries: list[Delivery]
    effects: dict[str, int]  #: applications by key, at a sink that honours it
    tasks: list[Task]
    dead_letters: list[DeadLetter]
    poison: list[Poison]
    noise: list[tuple[float, float]]  #: when, seconds by which a short sleep was too long
    samples: list[Sample]
    left: Left
    acts: list[Act] = dataclasses.field(default_factory=list)
    hooks: list[Hook] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)
    jobs: list[dict[str, Any]] = dataclasses.field(default_factory=list)  #: as the API shows them in the end
    schedules: list[dict[str, Any]] = dataclasses.field(
        default_factory=list
    )  #: as the API showed them before their deletion, with ``seenAt``
    audit: list[dict[str, str]] = dataclasses.field(default_factory=list)  #: verb and request id of each entry
    audit_lines: list[str] = dataclasses.field(default_factory=list)  #: request ids of the entries in the gateway's log

    def save(self, path: Path) -> None:
        """Write them to a file."""
        path.write_text(json.dumps(dataclasses.asdict(self), separators=(",", ":")))

    @classmethod
    def load(cls, path: Path) -> Facts:
        """Read them back."""
        data = json.loads(path.read_text())
        parts = {
            "orders": Order, "answers": Answer, "deliveries": Delivery, "tasks": Task, "dead_letters": DeadLetter,
            "poison": Poison, "samples": Sample, "acts": Act, "hooks": Hook, "calls": Call,
        }  # fmt: skip
        read = {name: [kind(**each) for each in data[name]] for name, kind in parts.items()}
        faults = [Happened(**{**each, "fault": Fault(**each["fault"])}) for each in data["faults"]]
        pairs = {name: [tuple(each) for each in data[name]] for name in ("ladder", "noise")}
        return cls(**{**data, **read, **pairs, "faults": faults, "left": Left(**data["left"])})
