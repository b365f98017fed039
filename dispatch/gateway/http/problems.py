"""Every error of the API: RFC 9457 problem details, one slug each.

The slugs are part of the contract: clients branch on ``type``, which is also the URL of a page that explains the error.
"""

from __future__ import annotations

import dataclasses
import http
from collections.abc import Mapping, Sequence
from typing import Any

MEDIA_TYPE = "application/problem+json"

#: Entries of `errors` in one problem: a body of 256 KiB can contain a hundred thousand errors.
MAX_ERRORS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class ProblemKind:
    """A problem type."""

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
            "The request has no API key, or one that is not configured.",
            "Send `Authorization: Bearer rk_<id>_<secret>`; an operator creates API keys with `dispatch keys new`.",
        ),
        ProblemKind(
            "insufficient-scope", 403, "The API key lacks a scope",
            "The API key is valid but lacks the scope that the operation requires; `detail` names it.",
            "Ask an operator for an API key with that scope.",
        ),
        ProblemKind(
            "forged-request", 403, "The request may be forged",
            "A form of the console came without the token of its session, or from another site's page.",
            "Load the page of the console again, and repeat what you did.",
        ),
        ProblemKind(
            "malformed-json", 400, "The body is not JSON",
            "The body could not be parsed: a syntax error, a duplicate name, NaN or Infinity, a number beyond 64 bits, "
            "nesting deeper than 64, or an encoding other than UTF-8.",
            "Correct the body; repeating it unchanged fails again.",
        ),
        ProblemKind(
            "validation-error", 422, "The request is not valid",
            "A member of the body or a query parameter is missing, unknown, or of the wrong type. "
            "`errors` has a JSON Pointer to each (`/query/<name>` for a query parameter).",
            "Correct what `errors` lists; repeating the request unchanged fails again.",
        ),
        ProblemKind(
            "unsupported-media-type", 415, "The body must be application/json",
            "The Content-Type is not `application/json` in UTF-8, or the body is compressed.",
            "Send plain JSON with `Content-Type: application/json`.",
        ),
        ProblemKind(
            "body-too-large", 413, "The body is too large",
            "The body exceeds `DISPATCH_MAX_BODY` (256 KiB by default), or that of a batch `DISPATCH_MAX_BATCH_BODY` (4 MiB).",
            "Send a reference to large data instead of the data itself, and a batch in parts.",
        ),
        ProblemKind(
            "unknown-task-type", 422, "No such task type",
            "No task type of that name is registered; `nearest` lists similar names.",
            "Choose one of `GET /v1/task-types`.",
        ),
        ProblemKind(
            "invalid-idempotency-key", 400, "The Idempotency-Key is not valid",
            "The Idempotency-Key must be 1 to 255 visible ASCII characters, quoted or bare.",
            "Send a UUID, for example.",
        ),
        ProblemKind(
            "idempotency-key-in-progress", 409, "The first request with this Idempotency-Key is in progress",
            "Another request with the same Idempotency-Key has no response yet, or was interrupted moments ago.",
            "Repeat the same request after `Retry-After` seconds.",
        ),
        ProblemKind(
            "idempotency-key-reused", 422, "The Idempotency-Key belongs to another request",
            "A request with the same Idempotency-Key and another body was accepted before.",
            "Use a new Idempotency-Key for each task.",
        ),
        ProblemKind(
            "quota-exceeded", 429, "Too many requests",
            "The principal has used up a quota, which `quota` names: `requests` within a time, `open-tasks` that have not ended, "
            "`stored-bytes` of their messages and of those of dead letters, or `dead-letters`.",
            "Repeat after `Retry-After` seconds; of dead letters, once an operator has redriven or discarded some.",
        ),
        ProblemKind(
            "queue-depth-exceeded", 429, "The work queue is full",
            "The work queue is deeper than `DISPATCH_QUEUE_DEPTH_LIMIT`, or the broker rejected the message. "
            "The task was not accepted and never runs.",
            "Repeat after `Retry-After` seconds: an estimate from the measured drain rate.",
        ),
        ProblemKind(
            "task-not-found", 404, "No such task",
            "There is no task with that id, it belongs to another principal, or (for dead letters) it is not in the "
            "dead-letter queue.",
            "Check the id.",
        ),
        ProblemKind(
            "task-expired", 410, "The task's record has expired",
            "The id is older than the retention of records after their terminal state "
            "(`DISPATCH_RESULT_TTL`, 24 h by default), and its record no longer exists.",
            "Read results within the retention time.",
        ),
        ProblemKind(
            "payload-gone", 410, "The task's payload is gone",
            "The task has ended for good, so nothing sends it again, and its payload has left the record.",
            "Read the task: its result and its hops are kept for the time of the record.",
        ),
        ProblemKind(
            "no-webhook", 409, "There is no webhook to deliver",
            "The task was submitted without `options.webhook`, or has not ended; `state` is its current state.",
            "Read the task: `webhook`, `status`.",
        ),
        ProblemKind(
            "task-not-dead", 409, "The task is not in the dead-letter queue",
            "Only a dead letter can be redriven or discarded; `state` is the task's current state.",
            "Read the task: it may have been redriven already.",
        ),
        ProblemKind(
            "task-terminal", 409, "The task has ended",
            "The verb is for tasks that have not ended; `state` is the task's current state.",
            "Read the task. A dead letter is discarded or redriven.",
        ),
        ProblemKind(
            "callback-not-found", 404, "No such callback",
            "The token in the URL is none of this gateway's.",
            "Call the URL as it was given, the whole of it.",
        ),
        ProblemKind(
            "callback-over", 410, "The callback is over",
            "The URL has expired, or its task has ended; `detail` has which.",
            "Do not call it again.",
        ),
        ProblemKind(
            "too-many-callbacks", 429, "Too many callbacks",
            "More callbacks for one task, or with wrong tokens from one address, have come within a minute than `DISPATCH_CALLBACK_LIMIT`.",
            "Repeat after `Retry-After` seconds; the same body again is the same signal.",
        ),
        ProblemKind(
            "too-many-signals", 409, "The task has too many signals",
            "A task takes 100 signals in its life.",
            "Put what is frequent into few signals, or into a system that the handler reads.",
        ),
        ProblemKind(
            "not-waiting", 409, "The task does not wait",
            "Only the wait of a task in the states RETRY_WAIT and DELAYED can be ended; `state` is the task's current state.",
            "Read the task: it may run already, or be in the work queue.",
        ),
        ProblemKind(
            "letter-too-large", 409, "The dead letter is too large for workers",
            "The message was not published by this gateway; its body exists in RabbitMQ only and exceeds the workers' limit.",
            "Discard the dead letter.",
        ),
        ProblemKind(
            "job-not-found", 404, "No such job",
            "There is no job with that id: it has ended more than a day ago, or never was.",
            "Read `GET /v1/jobs`.",
        ),
        ProblemKind(
            "job-finished", 409, "The job has ended",
            "It is done, or was stopped before.",
            "Read the job.",
        ),
        ProblemKind(
            "pause-not-found", 404, "No such pause",
            "Nothing of that name is paused: its pause was ended, ended by itself, or never was.",
            "Read `GET /v1/pauses`.",
        ),
        ProblemKind(
            "key-not-in-use", 404, "The key is not in use",
            "No task holds this concurrency key, and none waits for it.",
            "Read `GET /v1/keys`.",
        ),
        ProblemKind(
            "broker-unavailable", 503, "The message broker is not available",
            "RabbitMQ is unreachable or did not accept the message. The task was not accepted and never runs.",
            "Repeat after `Retry-After` seconds.",
        ),
        ProblemKind(
            "publish-unroutable", 503, "No queue is bound for the task",
            "RabbitMQ returned the message because no queue is bound for it. The task was not accepted and never runs.",
            "Repeat later; an operator must run `celery -A celery_app topology apply`.",
        ),
        ProblemKind(
            "publish-unconfirmed", 503, "It is unknown whether the task was accepted",
            "RabbitMQ or Redis did not confirm in time. The task may run, at most once.",
            "Repeat the same request with the same Idempotency-Key: it returns the same `taskId`, and the task runs at most "
            "once. Without an Idempotency-Key, read the task with the `taskId` of this problem before submitting it again.",
        ),
        ProblemKind(
            "store-unavailable", 503, "The task store is not available",
            "Redis is unreachable, full, or did not respond in time. A task submitted with this request was not "
            "accepted and never runs.",
            "Repeat after `Retry-After` seconds, with the same Idempotency-Key.",
        ),
        ProblemKind(
            "stream-capacity", 503, "Too many event streams",
            "The gateway serves its maximum number of long polls and event streams, or the principal has its share of them.",
            "Poll the task with `Prefer: wait=20` instead, or repeat after `Retry-After` seconds.",
        ),
        ProblemKind(
            "gateway-busy", 503, "Too many large bodies at the same time",
            "The gateway process reads large bodies one at a time and holds few batches, and the request's turn, or that of an item, did "
            "not come. The task was not accepted and never runs.",
            "Repeat after `Retry-After` seconds.",
        ),
        ProblemKind(
            "too-many-jobs", 429, "Too many jobs",
            "As many jobs, or bulk redrives, run as may run at most.",
            "Repeat when some are done, or stop some: `GET /v1/jobs`.",
        ),
        ProblemKind(
            "keys-unavailable", 503, "The API keys are not available",
            "The gateway process has not been able to read its file of API keys since it started, so it does not know whether "
            "the request's API key is valid.",
            "Repeat after `Retry-After` seconds; an operator must correct `DISPATCH_API_KEYS_FILE` (`/readyz` has the reason).",
        ),
        ProblemKind(
            "schedule-not-found", 404, "No such schedule",
            "There is no schedule with that name, or it is another principal's.", "See `GET /v1/schedules`.",
        ),
        ProblemKind(
            "schedule-exists", 409, "There is a schedule with that name",
            "Names are shared by all principals: the schedule is another principal's, or the request had `If-None-Match: *`.",
            "Choose another name, or change the schedule with `If-Match`.",
        ),
        ProblemKind(
            "schedule-changed", 412, "The schedule was changed meanwhile",
            "Its revision is not the one in `If-Match`, or others change it at the same time.",
            "Read it again, and repeat the change with its `ETag`.",
        ),
        ProblemKind(
            "schedule-unconfirmed", 503, "The schedule is stored and does not wait yet",
            "RabbitMQ did not confirm the message that waits for its next due time. A worker has it wait within a minute; until then "
            "the schedule is in Redis alone.",
            "Repeat the request, or read the schedule: `waitsAs` names the task once it waits.",
        ),
        ProblemKind(
            "too-many-schedules", 429, "Too many schedules",
            "As many schedules as can be are stored, of all principals together.", "Delete some, then repeat the request.",
        ),
        ProblemKind("not-found", 404, "No such resource", "No operation has this path.", "See `/docs`."),
        ProblemKind(
            "method-not-allowed", 405, "The method is not allowed here",
            "The path exists but not with this method; `Allow` lists the methods it has.", "See `/docs`.",
        ),
        ProblemKind(
            "internal-error", 500, "Internal error in the gateway",
            "An unexpected error, logged with the `requestId`.",
            "Report the `requestId` to an operator. Repeat a submission only with the same Idempotency-Key.",
        ),
    )
}  # fmt: skip


def plain(status: int) -> ProblemKind:
    """A problem without a type of its own, defined by its HTTP status (RFC 9457, 4.2.1)."""
    phrase = http.HTTPStatus(status).phrase
    return ProblemKind("", status, phrase, f"{phrase}.", "")


@dataclasses.dataclass(frozen=True, slots=True)
class FieldError:
    """One validation error of a request."""

    pointer: str  #: JSON Pointer (RFC 6901) into the body, or ``/query/<name>``
    detail: str
    code: str  #: machine-readable, e.g. ``missing``

    def to_json(self) -> dict[str, str]:
        """As in the response body."""
        return {"pointer": self.pointer, "detail": self.detail, "code": self.code}


class Problem(Exception):
    """Raised anywhere in the gateway; the response is RFC 9457 problem details.

    Args:
        kind: slug of one of `KINDS`, or a `plain` kind.
        detail: specific to this occurrence; never quotes the request.
        retry_after: seconds for the Retry-After header.
        errors: validation errors.
        headers: additional response headers.
        members: extension members of the body (RFC 9457, 3.2).
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
        """The members that do not depend on the request."""
        body: dict[str, Any] = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [error.to_json() for error in self.errors[:MAX_ERRORS]]
        return body | self.members
