"""Every error of the client.

::

    DispatchError
    ├── ConnectionFailed            no response: whether the request had an effect is unknown, unless `unsent`
    │   └── RequestTimeout
    ├── UnexpectedResponse          a response that is none of the API's, e.g. of a proxy
    ├── WaitTimeout                 the task has not ended in time; it goes on
    ├── JobTimeout                  the job has not ended in time; it goes on
    ├── WebhookRefused              a webhook that is not genuine, or not recent (`webhooks.verify`)
    ├── TaskFailed                  the task ended FAIL (`Task.raise_for_failure`)
    └── ApiError                    a problem (RFC 9457), by its slug; of an unknown slug by its status
        ├── Unauthenticated, InsufficientScope, InternalError
        ├── InvalidRequest          400 413 415 422, e.g. ValidationFailed
        ├── NotFound                404 410, e.g. TaskNotFound
        ├── Conflict                409 412, e.g. TaskTerminal
        ├── TooManyRequests         429, e.g. QueueDepthExceeded
        └── Unavailable             502 503 504, e.g. BrokerUnavailable
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from robot_dispatch_client.models import Job, Task


@dataclasses.dataclass(frozen=True, slots=True)
class FieldError:
    """One validation error of a request."""

    pointer: str  #: JSON Pointer into the body, or ``/query/<name>``
    detail: str
    code: str  #: machine-readable, e.g. ``missing``


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457) of a response."""

    status: int
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    request_id: str = ""
    trace_id: str = ""
    retry_after: float | None = None  #: seconds after which a repeat may help
    errors: tuple[FieldError, ...] = ()  #: of `ValidationFailed`
    members: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: every member of the body

    @property
    def slug(self) -> str:
        """The last segment of `type`; empty of ``about:blank``."""
        return self.type.rpartition("/problems/")[2] if "/problems/" in self.type else ""


class DispatchError(Exception):
    """Base of the client's errors."""

    request_id: str | None = None  #: `X-Request-Id` of the request, by which an operator finds it in the logs
    idempotency_key: str | None = None  #: of a submission: the same call with this key is safe, whatever happened


class ConnectionFailed(DispatchError):
    """No response came. A submission may be repeated with its `idempotency_key`.

    Args:
        text: what the HTTP library reported.
        unsent: the request did not leave: it had no effect.
    """

    def __init__(self, text: str = "", *, unsent: bool = False) -> None:
        super().__init__(text)
        self.unsent = unsent


class RequestTimeout(ConnectionFailed):
    """No response came in time."""


class UnexpectedResponse(DispatchError):
    """The response is none of the API's: a proxy's, or another server's."""


class WaitTimeout(DispatchError):
    """The task has not ended in time; it goes on.

    Args:
        task: as it was last.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"task {self.task.task_id} is {self.task.state}"


class JobTimeout(DispatchError):
    """The job has not ended in time; it goes on.

    Args:
        job: as it was last.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job

    def __str__(self) -> str:
        return f"job {self.job.job_id} is {self.job.state}"


class WebhookRefused(DispatchError):
    """A webhook is not genuine, not recent, or none of this API."""


class TaskFailed(DispatchError):
    """The task ended FAIL.

    Args:
        task: with its `error`.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        reason = f": {self.task.error.type}: {self.task.error.detail}" if self.task.error else ""
        return f"task {self.task.task_id} is {self.task.state}{reason}"


class ApiError(DispatchError):
    """The API refused a request, or could not serve it.

    Args:
        problem: the body of the response.
    """

    slug: ClassVar[str] = ""  #: the problem type of this class

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem
        self.request_id = problem.request_id or None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def detail(self) -> str:
        """What is wrong, specific to this occurrence."""
        return self.problem.detail

    @property
    def retry_after(self) -> float | None:
        """Seconds after which a repeat may help."""
        return self.problem.retry_after

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """The validation errors of the request."""
        return self.problem.errors

    def __str__(self) -> str:
        problem = self.problem
        text = f"{problem.status} {problem.slug or problem.title}: {problem.detail or problem.title}"
        listed = "; ".join(f"{error.pointer or '/'}: {error.detail}" for error in problem.errors)
        return f"{text} ({listed})" if listed else text


class Unauthenticated(ApiError):
    """The API key is missing or not configured."""

    slug = "unauthenticated"


class InsufficientScope(ApiError):
    """The API key lacks a scope, which `detail` names."""

    slug = "insufficient-scope"


class InternalError(ApiError):
    """A bug in the gateway; its log has the `request_id`."""

    slug = "internal-error"


# --- 400, 413, 415, 422: the same request fails again ---------------------------------------------
class InvalidRequest(ApiError):
    """The request is wrong: it fails again unless it is changed."""


class MalformedJson(InvalidRequest):
    """The body is not JSON that the API reads."""

    slug = "malformed-json"


class ValidationFailed(InvalidRequest):
    """The payload, an option or a parameter is not valid; `errors` lists what."""

    slug = "validation-error"


class UnknownTaskType(InvalidRequest):
    """No task type has that name."""

    slug = "unknown-task-type"

    @property
    def nearest(self) -> list[str]:
        """Similar names that exist."""
        return list(self.problem.members.get("nearest") or ())


class UnsupportedMediaType(InvalidRequest):
    """The body is not plain JSON."""

    slug = "unsupported-media-type"


class BodyTooLarge(InvalidRequest):
    """The body is larger than the gateway accepts."""

    slug = "body-too-large"


class InvalidIdempotencyKey(InvalidRequest):
    """The idempotency key must have 1 to 255 visible ASCII characters."""

    slug = "invalid-idempotency-key"


class IdempotencyKeyReused(InvalidRequest):
    """The idempotency key belongs to another submission."""

    slug = "idempotency-key-reused"


# --- 404, 410 -------------------------------------------------------------------------------------
class NotFound(ApiError):
    """There is no such thing, or no longer."""

    slug = "not-found"


class TaskNotFound(NotFound):
    """There is no such task, it is another principal's, or it is no dead letter."""

    slug = "task-not-found"


class TaskExpired(NotFound):
    """The task's record is older than records are kept."""

    slug = "task-expired"


class PayloadGone(NotFound):
    """The task has ended for good, and its payload is no longer stored."""

    slug = "payload-gone"


class JobNotFound(NotFound):
    """There is no such job; a bulk redrive that is done is none any more."""

    slug = "job-not-found"


class KeyNotInUse(NotFound):
    """No task holds the concurrency key, and none waits for it."""

    slug = "key-not-in-use"


class PauseNotFound(NotFound):
    """Nothing of that name is paused."""

    slug = "pause-not-found"


class ScheduleNotFound(NotFound):
    """There is no such schedule."""

    slug = "schedule-not-found"


# --- 409, 412 -------------------------------------------------------------------------------------
class Conflict(ApiError):
    """The state of the task does not allow it."""

    @property
    def state(self) -> str:
        """The task's state, where the problem has it."""
        return str(self.problem.members.get("state") or "")


class IdempotencyKeyInProgress(Conflict):
    """Another request with the same idempotency key has no response yet."""

    slug = "idempotency-key-in-progress"


class TaskTerminal(Conflict):
    """The task has ended."""

    slug = "task-terminal"


class NotWaiting(Conflict):
    """The task does not wait."""

    slug = "not-waiting"


class TaskNotDead(Conflict):
    """The task is no dead letter."""

    slug = "task-not-dead"


class LetterTooLarge(Conflict):
    """The dead letter is larger than workers accept."""

    slug = "letter-too-large"


class TooManySignals(Conflict):
    """The task has as many signals as a task can have."""

    slug = "too-many-signals"


class JobFinished(Conflict):
    """The job is done, or was stopped before."""

    slug = "job-finished"


class NoWebhook(Conflict):
    """The task was submitted without a webhook, or has not ended."""

    slug = "no-webhook"


class ScheduleExists(Conflict):
    """There is a schedule of that name already."""

    slug = "schedule-exists"


class ScheduleChanged(Conflict):
    """The schedule was changed meanwhile."""

    slug = "schedule-changed"


# --- 429 ------------------------------------------------------------------------------------------
class TooManyRequests(ApiError):
    """Repeat after `retry_after` seconds; nothing was accepted."""


class QuotaExceeded(TooManyRequests):
    """The principal has used up a quota."""

    slug = "quota-exceeded"

    @property
    def quota(self) -> str:
        """Which quota."""
        return str(self.problem.members.get("quota") or "")


class QueueDepthExceeded(TooManyRequests):
    """The work queue is full."""

    slug = "queue-depth-exceeded"


class TooManyJobs(TooManyRequests):
    """As many bulk operations wait as are stored at most."""

    slug = "too-many-jobs"


class TooManySchedules(TooManyRequests):
    """As many schedules are stored as can be."""

    slug = "too-many-schedules"


# --- 502, 503, 504 --------------------------------------------------------------------------------
class Unavailable(ApiError):
    """Something that the request needs is down or full for the moment."""


class BrokerUnavailable(Unavailable):
    """RabbitMQ is not available; nothing was accepted."""

    slug = "broker-unavailable"


class StoreUnavailable(Unavailable):
    """Redis is not available."""

    slug = "store-unavailable"


class PublishUnroutable(Unavailable):
    """No queue is bound for the task; nothing was accepted."""

    slug = "publish-unroutable"


class PublishUnconfirmed(Unavailable):
    """Whether the task was accepted is unknown: repeat with the same `idempotency_key`."""

    slug = "publish-unconfirmed"

    @property
    def task_id(self) -> str:
        """The task, if it was accepted."""
        return str(self.problem.members.get("taskId") or "")


class StreamCapacity(Unavailable):
    """The gateway has no place for another event stream."""

    slug = "stream-capacity"


class GatewayBusy(Unavailable):
    """The gateway reads too many large bodies; nothing was accepted."""

    slug = "gateway-busy"


class KeysUnavailable(Unavailable):
    """The gateway has no API keys to compare with."""

    slug = "keys-unavailable"


class ScheduleUnconfirmed(Unavailable):
    """The schedule is stored and does not wait yet."""

    slug = "schedule-unconfirmed"


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest, 401: Unauthenticated, 403: InsufficientScope, 404: NotFound, 409: Conflict, 410: NotFound,
    412: Conflict, 413: InvalidRequest, 415: InvalidRequest, 422: InvalidRequest, 429: TooManyRequests,
    500: InternalError, 502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip


def _descendants(parent: type[ApiError]) -> Iterator[type[ApiError]]:
    for child in parent.__subclasses__():
        yield child
        yield from _descendants(child)


#: The error of each known slug.
BY_SLUG: Mapping[str, type[ApiError]] = {error.slug: error for error in _descendants(ApiError) if error.slug}


def of_problem(problem: Problem) -> ApiError:
    """The error for a problem: by its slug, else by its status.

    Args:
        problem: of any status and type, also of a later version of the API.
    """
    kind = BY_SLUG.get(problem.slug) or _BY_STATUS.get(problem.status, ApiError)
    return kind(problem)
