"""What the gateway needs of the other steps, as narrow as it needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from dispatch.gateway.submission import Accepted, Submission
from dispatch.protocol.record import Record
from dispatch.store.tasks import Page

Hops = list[dict[str, Any]]  #: API.md, "Events"


class Tasks(Protocol):
    """Reads records; `dispatch.store.tasks.TaskStore` is one. Each raises StoreUnavailable."""

    def get(self, task_id: str) -> Record | None:
        """One record."""

    def list(
        self,
        *,
        principal: str | None = None,
        status: str | None = None,
        state: str | None = None,
        type: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of records, newest first; ValueError on a bad cursor."""

    def wait(self, task_id: str, revision: int, seconds: float, over: Callable[[], bool]) -> Record | None:
        """The record as soon as its revision differs, or as it is at the deadline, or when it is over."""

    def hops(self, task_id: str) -> Hops:
        """What happened to a task, oldest first."""


class Submits(Protocol):
    """Accepts tasks; `dispatch.gateway.submission.Submitter` is one."""

    def submit(self, submission: Submission) -> Accepted:
        """Record and publish a task."""


class KnownKeys(Protocol):
    """Looks Idempotency-Keys up; `dispatch.gateway.replays.Replays` does."""

    def known(self, principal: str, key: str) -> bool:
        """Whether a principal's key is in use."""


class Letters(Protocol):
    """The operator's verbs over dead letters; `dispatch.gateway.letters.LetterDesk` is one."""

    def get(self, task_id: str) -> Record:
        """A record whose letter lies in the DLQ; raises NoSuchDeadLetter."""

    def list(self, *, type: str | None, error_type: str | None, limit: int, cursor: str | None) -> Page:
        """A page of dead letters, newest first; ValueError on a bad cursor."""

    def redrive(self, task_id: str, *, by: str) -> Record:
        """Send one again; raises NoSuchDeadLetter, NotDead, TooLarge, PublishError."""

    def discard(self, task_id: str, *, by: str) -> None:
        """Drop one; raises NoSuchDeadLetter."""

    def count(self, *, type: str | None, error_type: str | None, limit: int) -> int:
        """How many match, at most the limit."""

    def request_bulk(
        self, *, type: str | None, error_type: str | None, limit: int, rate_per_second: float, by: str
    ) -> int:
        """Have the workers send many again; how many match now."""
