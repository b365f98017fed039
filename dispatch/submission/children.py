"""Tasks that a task's handler submits: the same way as a client's, under an id that a repeated step derives again.

A child has its parent's principal and request id, and is in the trace of the run that submitted it. Its id is derived from the parent's
id and cycle and from a key that the handler chooses, so a step that is repeated (a retry, a redelivery after a crash) submits
nothing twice; a redrive, which is another cycle, submits anew. The id carries the parent's time, or of a parent whose id has none, the time of
its acceptance: an expired child is distinguished from an unknown one, as any task.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from dispatch.errors import InDoubt, Nacked, PermanentError, PublishError, StoreError, Throttled, Unroutable
from dispatch.protocol.ids import derived_id, issued_at
from dispatch.protocol.labels import is_valid
from dispatch.protocol.message import ACCEPTED_AT, PRINCIPAL, REQUEST_ID, Message
from dispatch.submission.once import OnceSubmitter
from dispatch.submission.submitter import Submission
from dispatch.tasktypes.registry import TaskType
from dispatch.tasktypes.validating import validated

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

#: Children that one run of a handler may submit.
MAX_CHILDREN = 100

#: Characters of a key.
MAX_KEY = 200

#: Types of the errors that the handler gets, by what kept the child from being accepted; the first that fits.
_REFUSED = (
    (Nacked, "queue-depth-exceeded"), (Unroutable, "publish-unroutable"), (InDoubt, "publish-unconfirmed"),
    (PublishError, "broker-unavailable"), (StoreError, "store-unavailable"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ChildTask:
    """What a handler submits."""

    type: str
    payload: Mapping[str, Any]
    key: str  #: distinguishes the children of one cycle
    delay: float = 0.0  #: seconds before which it does not run
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)


class ChildSubmitter:
    """Submits the children of running tasks. Thread-safe.

    Args:
        once: submits what has a derived id.
        types: the task types.
        max_body: bytes of a payload's JSON.
        longest_delay: seconds.
    """

    def __init__(
        self, once: OnceSubmitter, types: Mapping[str, TaskType], *, max_body: int, longest_delay: int
    ) -> None:
        self._once = once
        self._types = types
        self._max_body = max_body
        self._longest_delay = longest_delay

    def submit(self, parent: Message, traceparent: str, child: ChildTask) -> str:
        """Submit a child, unless it was submitted before.

        Args:
            parent: the message of the task that runs.
            traceparent: of its run.
            child: what to submit.

        Returns:
            The child's task id. It will reach SUCCESS or FAIL.

        Raises:
            PermanentError: it can never be submitted: ``invalid-child``.
            Throttled: it can't be submitted now; the repeated step submits it.
        """
        submission = self._submission(parent, traceparent, child)
        with refusals(f"child {child.key!r}"):
            return self._once.submit(submission, family=parent.task_id)

    def _submission(self, parent: Message, traceparent: str, child: ChildTask) -> Submission:
        """The same that a gateway makes of a request."""
        task_type = self._types.get(child.type)
        if task_type is None or task_type.internal:
            raise _invalid(child, f"there is no task type {child.type!r}")
        if not isinstance(child.key, str) or not 1 <= len(child.key) <= MAX_KEY:
            raise _invalid(child, f"its key must be text of 1 to {MAX_KEY} characters")
        if not 0 <= child.delay <= self._longest_delay:
            raise _invalid(child, f"its delay must be 0 to {self._longest_delay} seconds")
        if not is_valid(child.labels):
            raise _invalid(child, "its labels are not valid")
        try:
            payload = checked_payload(task_type, child.payload, self._max_body)
        except ValueError as exc:
            raise _invalid(child, str(exc)) from None
        return Submission(
            principal=parent.text(PRINCIPAL) or "",
            type=task_type,
            payload=payload,
            fingerprint="",
            idempotency_key=None,
            request_id=parent.text(REQUEST_ID) or "",
            traceparent=traceparent,
            wakes_at=int((time.time() + child.delay) * 1_000) if child.delay else 0,
            labels=child.labels,
            task_id=derived_id(_millis(parent), parent.task_id, parent.cycle, child.key),
            parent_id=parent.task_id,
        )


def checked_payload(task_type: TaskType, payload: Mapping[str, Any], max_body: int) -> dict[str, Any]:
    """A payload as a gateway publishes it.

    Args:
        task_type: whose model checks it.
        payload: JSON-ready.
        max_body: bytes of its JSON at most.

    Raises:
        ValueError: what is wrong with it, without a quote of it.
    """
    try:
        text = _encode(dict(payload)).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"its payload is not JSON: {type(exc).__name__}") from None
    if len(text) > max_body:
        raise ValueError(f"its payload is {len(text)} bytes of JSON, more than {max_body}")
    try:
        model = validated(task_type.payload, payload, text)
    except pydantic.ValidationError as exc:
        errors = exc.errors(include_input=False, include_context=False, include_url=False)
        places = [f"/{'/'.join(map(str, error['loc']))}: {error['msg']}" for error in errors]
        raise ValueError(f"its payload is not valid: {'; '.join(places)}") from None
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn an error of a submission into one that a handler raises.

    Args:
        what: is submitted; begins the text.

    Raises:
        Throttled: it can't be submitted now.
    """
    try:
        yield
    except (PublishError, StoreError) as exc:
        type_ = next(name for kind, name in _REFUSED if isinstance(exc, kind))
        raise Throttled(f"{what}: {exc}", type=type_) from exc


def _millis(parent: Message) -> int:
    issued = issued_at(parent.task_id)
    return parent.moment(ACCEPTED_AT) if issued is None else round(issued * 1_000)


def _invalid(child: ChildTask, why: str) -> PermanentError:
    return PermanentError(f"child {str(child.key)[:MAX_KEY]!r}: {why}", type="invalid-child")
