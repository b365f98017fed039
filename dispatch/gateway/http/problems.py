"""Every error the API can answer with: RFC 9457 problem details, one slug each.

The slugs are part of the contract: clients branch on ``type``, people read the page it links to.
"""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Mapping, Sequence
from typing import Any

MEDIA_TYPE = "application/problem+json"

#: Of the errors inside one problem: a body of 256 KiB can be wrong in a hundred thousand places.
MAX_ERRORS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class ProblemKind:
    """One sort of error."""

    slug: str
    status: int
    title: str
    meaning: str  #: what happened
    remedy: str  #: what the client should do

    @property
    def type(self) -> str:
        """The URI reference that identifies it (RFC 9457, 3.1.1)."""
        return f"/problems/{self.slug}" if self.slug else "about:blank"


KINDS: Mapping[str, ProblemKind] = {
    kind.slug: kind
    for kind in (
        ProblemKind(
            "unauthenticated", 401, "No valid API key",
            "The request had no API key, or one that is not configured.",
            "Send `Authorization: Bearer rk_<id>_<secret>`; an operator makes a key with `dispatch keys new`.",
        ),
        ProblemKind(
            "insufficient-scope", 403, "The API key may not do this",
            "The key is valid but lacks the scope that the operation needs; `detail` names it.",
            "Ask an operator for a key with that scope.",
        ),
        ProblemKind(
            "malformed-json", 400, "The body is not JSON",
            "The body could not be read: a syntax error, a name given twice, NaN or Infinity, a number beyond 64 bits, "
            "nesting deeper than 64, or another encoding than UTF-8.",
            "Mend the body; repeating it unchanged can't help.",
        ),
        ProblemKind(
            "validation-error", 422, "The request is not valid",
            "The request was read but a member or a query parameter is missing, unknown, or of the wrong kind. "
            "`errors` has a JSON Pointer to each (`/query/<name>` for a query parameter).",
            "Mend what `errors` lists; repeating the request unchanged can't help.",
        ),
        ProblemKind(
            "unsupported-media-type", 415, "The body must be application/json",
            "The Content-Type is not `application/json` in UTF-8, or the body is compressed.",
            "Send plain JSON with `Content-Type: application/json`.",
        ),
        ProblemKind(
            "body-too-large", 413, "The body is too large",
            "The body has more bytes than `DISPATCH_MAX_BODY` (256 KiB by default).",
            "Send a reference to large data instead of the data.",
        ),
        ProblemKind(
            "unknown-task-type", 422, "No such task type",
            "No worker knows a task type of that name; `nearest` lists similar ones.",
            "Choose one of `GET /v1/task-types`.",
        ),
        ProblemKind(
            "invalid-idempotency-key", 400, "The Idempotency-Key is not usable",
            "The key must be 1 to 255 visible ASCII characters, quoted or bare.",
            "Send a UUID, for example.",
        ),
        ProblemKind(
            "idempotency-key-in-progress", 409, "The first request with this key is still in flight",
            "Another request with the same Idempotency-Key has not been answered yet, or was cut off moments ago.",
            "Repeat the same request after `Retry-After` seconds.",
        ),
        ProblemKind(
            "idempotency-key-reused", 422, "The Idempotency-Key belongs to another request",
            "A request with the same Idempotency-Key and another body was accepted before.",
            "Use a fresh key for each new task.",
        ),
        ProblemKind(
            "quota-exceeded", 429, "Too many requests",
            "The principal has used up its share of requests.",
            "Repeat after `Retry-After` seconds.",
        ),
        ProblemKind(
            "queue-depth-exceeded", 429, "The work queue is full",
            "More tasks wait than `DISPATCH_QUEUE_DEPTH_LIMIT`, or the broker itself refused one more. "
            "The task was not accepted and never runs.",
            "Repeat after `Retry-After` seconds: an estimate from the measured drain rate.",
        ),
        ProblemKind(
            "task-not-found", 404, "No such task",
            "There is no task of that id, it is another principal's, or (for dead letters) it is not in the "
            "dead-letter queue.",
            "Check the id.",
        ),
        ProblemKind(
            "task-expired", 410, "The task's record has expired",
            "The id is older than the time that records are kept after their terminal state "
            "(`DISPATCH_RESULT_TTL`, 24 h by default), and there is no record of it any more.",
            "Read results within that time.",
        ),
        ProblemKind(
            "task-terminal", 409, "The task has already ended",
            "The operation needs a task that has not ended yet.",
            "Read the task; nothing is left to do.",
        ),
        ProblemKind(
            "task-not-dead", 409, "The task is not in the dead-letter queue",
            "Only a dead letter can be redriven or discarded; `state` says where the task is instead.",
            "Read the task: it was perhaps redriven already.",
        ),
        ProblemKind(
            "letter-too-large", 409, "The letter is larger than workers take",
            "The message came from somebody else than this gateway; its body is in RabbitMQ only, and no worker reads it.",
            "Discard the letter.",
        ),
        ProblemKind(
            "broker-unavailable", 503, "The message broker is not available",
            "RabbitMQ could not be reached or did not take the message. The task was not accepted and never runs.",
            "Repeat after `Retry-After` seconds.",
        ),
        ProblemKind(
            "publish-unroutable", 503, "No queue is bound for the task",
            "RabbitMQ returned the message because no queue is bound for it. The task was not accepted and never runs.",
            "Repeat later; an operator has to run `celery -A celery_app topology apply`.",
        ),
        ProblemKind(
            "publish-unconfirmed", 503, "It is unknown whether the task was accepted",
            "RabbitMQ or Redis gave no verdict in time. The task may run, and it runs once at most.",
            "Repeat the same request with the same Idempotency-Key: it yields the same `taskId` and one execution at "
            "most. Without a key, look at the `taskId` in this problem before sending the task again.",
        ),
        ProblemKind(
            "store-unavailable", 503, "The task store is not available",
            "Redis could not be reached or did not answer in time. A task submitted with this request was not "
            "accepted and never runs.",
            "Repeat after `Retry-After` seconds, with the same Idempotency-Key.",
        ),
        ProblemKind(
            "stream-capacity", 503, "Too many event streams",
            "The gateway serves as many event streams as it can.",
            "Poll the task with `Prefer: wait=20` instead, or repeat after `Retry-After` seconds.",
        ),
        ProblemKind("not-found", 404, "No such resource", "Nothing is served under this path.", "See `/docs`."),
        ProblemKind(
            "method-not-allowed", 405, "The method is not allowed here",
            "The path exists but not with this method; `Allow` lists those it has.", "See `/docs`.",
        ),
        ProblemKind(
            "internal-error", 500, "Something went wrong in the gateway",
            "An error that nobody foresaw. It is logged with the `requestId`.",
            "Tell an operator the `requestId`. Repeat a submission only with the same Idempotency-Key.",
        ),
    )
}  # fmt: skip


def plain(status: int) -> ProblemKind:
    """A problem that says no more than its HTTP status (RFC 9457, 4.2.1)."""
    phrase = http.HTTPStatus(status).phrase
    return ProblemKind("", status, phrase, f"{phrase}.", "")


@dataclasses.dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with a request."""

    pointer: str  #: JSON Pointer (RFC 6901) into the body, or ``/query/<name>``
    detail: str
    code: str  #: machine-readable, e.g. ``missing``

    def to_json(self) -> dict[str, str]:
        """As the API shows it."""
        return {"pointer": self.pointer, "detail": self.detail, "code": self.code}


class Problem(Exception):
    """Raised anywhere in the gateway, answered as RFC 9457 problem details.

    Args:
        kind: one of `KINDS`, by slug, or one that is `plain`.
        detail: what is particular to this occurrence; never quotes what the client sent.
        retry_after: seconds for the Retry-After header.
        errors: for validation.
        headers: more response headers.
        members: more members of the body (RFC 9457, 3.2).
    """

    def __init__(
        self,
        kind: str | ProblemKind,
        detail: str | None = None,
        *,
        retry_after: int | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        self.kind = KINDS[kind] if isinstance(kind, str) else kind
        self.detail = detail or self.kind.meaning
        self.errors = errors
        self.headers = dict(headers or {})
        self.members = members
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        super().__init__(self.detail)

    def body(self) -> dict[str, Any]:
        """The members that don't depend on the request."""
        body: dict[str, Any] = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [error.to_json() for error in self.errors[:MAX_ERRORS]]
        return body | self.members
