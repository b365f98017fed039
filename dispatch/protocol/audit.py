"""An entry of the audit log: who did what, to what, from where, and what came of it. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.ids import timestamp
from dispatch.protocol.jobs import BulkJob, filter_json

#: Characters of a text in an entry: a target may be any path of a URL.
LONGEST = 256

#: Verbs of commands: those of the HTTP API, and one that it does not have.
REDRIVE, BULK_REDRIVE = "redriveDeadLetter", "redriveDeadLetters"
DISCARD, BULK_DISCARD = "discardDeadLetter", "discardDeadLetters"
STOP_JOB = "stopJob"
START_JOB = "startJob"
CANCEL_TASK, RETRY_TASK_NOW = "cancelTask", "retryTaskNow"
PAUSE, RESUME = "pauseTasks", "resumeTasks"
READ_PAYLOAD = "getTaskPayload"

OK = "ok"  #: result of what was done

BEGIN = "begin"  #: phase: the work on many has been accepted or begun
END = "end"  #: phase: it is over
INTERRUPTED = "interrupted"  #: phase: it was cut off after some, and goes on later

#: The fields that are texts, as Redis and the log have them.
_TEXTS = ("principal", "verb", "target", "result", "phase", "key", "client", "request_id")


@dataclasses.dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act of an operator, or one that was refused."""

    principal: str  #: who: the id of an API key, `local`, or ``cli:<OS user>``
    verb: str  #: an operationId of the HTTP API; commands use the same names
    target: str  #: a task id, or what a filter matches
    result: str  #: `OK`, the slug of a problem, or the name of an error
    phase: str = ""  #: `BEGIN`, `END`, `INTERRUPTED` of work on many; empty for one
    key: str = ""  #: fingerprint of the API key
    client: str = ""  #: the peer's address, or the host of a command
    request_id: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: counts; JSON-ready

    def texts(self) -> dict[str, str]:
        """The fields but for the details, each bounded."""
        return {name: getattr(self, name)[:LONGEST] for name in _TEXTS}

    def fields(self) -> list[str]:
        """Names and values in a row, as a stream takes them."""
        words = [word for pair in self.texts().items() if pair[1] for word in pair]
        return [*words, "details", json.dumps(self.details)] if self.details else words

    @classmethod
    def parse(cls, fields: Mapping[str, str]) -> Self:
        """From an entry of the stream; what an older or newer release has written is read as far as it goes."""
        try:
            details = json.loads(fields.get("details", "{}"))
        except ValueError:
            details = {}
        texts = {name: fields.get(name, "") for name in _TEXTS}
        return cls(**texts, details=details if isinstance(details, dict) else {})


@dataclasses.dataclass(frozen=True, slots=True)
class Audited:
    """An entry as the log has it."""

    id: str  #: ``<epoch milliseconds>-<number>``, by Redis's clock
    entry: AuditEntry

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        entry = self.entry
        return {
            "id": self.id,
            "at": timestamp(int(self.id.partition("-")[0])),
            "principal": entry.principal,
            "keyId": entry.key or None,
            "client": entry.client or None,
            "verb": entry.verb,
            "target": entry.target,
            "phase": entry.phase or None,
            "result": entry.result,
            "requestId": entry.request_id or None,
            "details": dict(entry.details),
        }


def target_of(wanted: DeadLetterFilter) -> str:
    """What a filter matches, in words."""
    if wanted.task_id is not None:
        return wanted.task_id
    return " ".join(f"{name}={value}" for name, value in wanted.to_json().items() if value is not None) or "all"


def job_target(job: BulkJob) -> str:
    """What a job does to what, in words."""
    given = {name: value for name, value in filter_json(job.filter).items() if value}
    labels = given.pop("labels", {})
    words = [
        *(f"{name}={value}" for name, value in given.items()),
        *(f"label={name}={labels[name]}" for name in labels),
    ]
    return f"{job.verb.value} {' '.join(words) or 'all'}"
