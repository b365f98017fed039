"""Tasks that a task's handler submits: the same way as a client's, under an id that a repeated step derives again.

A child has its parent's principal and request id, and is in the trace of the run that submitted it. Its id is derived from the parent's
id and cycle and from a key that the handler chooses, so a step that is repeated (a retry, a redelivery after a crash) submits
nothing twice; a redrive, which is another cycle, submits anew. The id carries the parent's time, or of a parent whose id has none, the time of
its acceptance: an expired child is distinguished from an unknown one, as any task.

Crash windows: those of `dispatch.store.tasks` and `dispatch.store.children`, of which each ends with the repeated step.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import pydantic

from dispatch.config.groups import GatewaySettings
from dispatch.crashpoints import reach
from dispatch.errors import InDoubt, Nacked, PermanentError, PublishError, StoreError, Throttled, Unroutable
from dispatch.protocol.ids import derived_id, issued_at
from dispatch.protocol.labels import is_valid
from dispatch.protocol.message import ACCEPTED_AT, PRINCIPAL, REQUEST_ID, Message
from dispatch.protocol.record import Record, State
from dispatch.store.children import ChildEntries, ChildEntry
from dispatch.store.tasks import TaskStore
from dispatch.submission.quotas import limits, used_up
from dispatch.submission.submitter import Submission, Submitter
from dispatch.tasktypes.registry import TaskType
from dispatch.tasktypes.validating import validated

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

#: Children that one run of a handler may submit.
MAX_CHILDREN = 100

#: Characters of a key.
MAX_KEY = 200

#: Submissions of one child that the broker has refused before the handler gets an error.
_REFUSALS = 10


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
        submitter: the way that clients' tasks take.
        tasks: the records.
        entries: what was submitted.
        types: the task types.
        settings: quotas, and the bytes of a payload.
        longest_delay: seconds.
    """

    def __init__(
        self,
        submitter: Submitter,
        tasks: TaskStore,
        entries: ChildEntries,
        types: Mapping[str, TaskType],
        settings: GatewaySettings,
        *,
        longest_delay: int,
    ) -> None:
        self._submitter = submitter
        self._tasks = tasks
        self._entries = entries
        self._types = types
        self._settings = settings
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
        try:
            return self._submit(submission, parent)
        except Nacked as exc:
            raise Throttled(f"child {child.key!r}: the queue is full", type="queue-depth-exceeded") from exc
        except Unroutable as exc:
            raise Throttled(f"child {child.key!r}: no queue takes it", type="publish-unroutable") from exc
        except InDoubt as exc:
            raise Throttled(f"child {child.key!r}: {exc}", type="publish-unconfirmed") from exc
        except PublishError as exc:
            raise Throttled(f"child {child.key!r}: {exc}", type="broker-unavailable") from exc
        except StoreError as exc:
            raise Throttled(f"child {child.key!r}: {exc}", type="store-unavailable") from exc

    # --- the request -----------------------------------------------------------------------------
    def _submission(self, parent: Message, traceparent: str, child: ChildTask) -> Submission:
        """The same that a gateway makes of a request."""
        task_type = self._types.get(child.type)
        if task_type is None:
            raise _invalid(child, f"there is no task type {child.type!r}")
        if not isinstance(child.key, str) or not 1 <= len(child.key) <= MAX_KEY:
            raise _invalid(child, f"its key must be text of 1 to {MAX_KEY} characters")
        if not 0 <= child.delay <= self._longest_delay:
            raise _invalid(child, f"its delay must be 0 to {self._longest_delay} seconds")
        if not is_valid(child.labels):
            raise _invalid(child, "its labels are not valid")
        return Submission(
            principal=parent.text(PRINCIPAL) or "",
            type=task_type,
            payload=self._payload(task_type, child),
            fingerprint="",
            idempotency_key=None,
            request_id=parent.text(REQUEST_ID) or "",
            traceparent=traceparent,
            wakes_at=int((time.time() + child.delay) * 1_000) if child.delay else 0,
            labels=child.labels,
            task_id=_first_id(parent, child.key),
            parent_id=parent.task_id,
        )

    def _payload(self, task_type: TaskType, child: ChildTask) -> dict[str, Any]:
        try:
            text = _encode(dict(child.payload)).encode()
            if len(text) > self._settings.max_body:
                raise _invalid(child, f"its payload is {len(text)} bytes of JSON, more than {self._settings.max_body}")
            payload = validated(task_type.payload, child.payload, text)
        except pydantic.ValidationError as exc:
            errors = exc.errors(include_input=False, include_context=False, include_url=False)
            places = [f"/{'/'.join(map(str, error['loc']))}: {error['msg']}" for error in errors]
            raise _invalid(child, f"its payload is not valid: {'; '.join(places)}") from None
        except (TypeError, ValueError, RecursionError) as exc:
            raise _invalid(child, f"its payload is not JSON: {type(exc).__name__}") from None
        return payload.model_dump(mode="json", by_alias=True, exclude_unset=True)

    # --- the submission --------------------------------------------------------------------------
    def _submit(self, submission: Submission, parent: Message) -> str:
        first, parent_id = submission.task_id, parent.task_id
        entry, new = self._entries.reserve(parent_id, first)
        reach("child.reserved")
        begun = None if new else self._begun(entry)
        for _ in range(_REFUSALS):
            if entry.accepted:
                return entry.task_id
            if begun is None or begun.state is not State.REJECTED:
                break
            following = ChildEntry(derived_id(_millis(parent), entry.task_id))
            entry = self._entries.advance(parent_id, first, entry, following)
            begun = self._begun(entry)
        task_id = self._accept(dataclasses.replace(submission, task_id=entry.task_id), begun)
        reach("child.submitted")
        self._entries.advance(parent_id, first, entry, ChildEntry(task_id, accepted=True))
        return task_id

    def _begun(self, entry: ChildEntry) -> Record | None:
        return None if entry.accepted else self._tasks.whole(entry.task_id)

    def _accept(self, submission: Submission, begun: Record | None) -> str:
        if begun is None:
            self._check_quotas(submission.principal)
        elif begun.published or begun.state is not State.SCHEDULED:
            return begun.task_id
        else:  # what it recorded may have been published, so the same goes on, whatever the repeated step asks for
            wakes_at = begun.wakes_at or 0
            submission = dataclasses.replace(submission, begun=begun.message, wakes_at=wakes_at)
        return self._submitter.submit(submission).record.task_id

    def _check_quotas(self, principal: str) -> None:
        usage = self._tasks.usage
        held = usage.lately(principal) or usage.read(principal)
        over = used_up(limits(held, self._settings))
        if over is not None:
            text = f"the principal's quota of {over.name} is used up: {over.used} of {over.most}"
            raise Throttled(text, type="quota-exceeded", retry_after=over.retry_after)


def _millis(parent: Message) -> int:
    issued = issued_at(parent.task_id)
    return parent.moment(ACCEPTED_AT) if issued is None else round(issued * 1_000)


def _first_id(parent: Message, key: str) -> str:
    return derived_id(_millis(parent), parent.task_id, parent.cycle, key)


def _invalid(child: ChildTask, why: str) -> PermanentError:
    return PermanentError(f"child {str(child.key)[:MAX_KEY]!r}: {why}", type="invalid-child")
