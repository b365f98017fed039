"""Submitting many tasks: in batches, each item with a verdict; what was refused for the moment is sent again. Without I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from robot_dispatch_client import calls, errors
from robot_dispatch_client.errors import ApiError, ConnectionFailed, DispatchError
from robot_dispatch_client.flows import Flow, Setting, Sleep, perform
from robot_dispatch_client.headers import key_header
from robot_dispatch_client.models import Task, VerdictBody
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import Submission, to_json

#: Items and bytes of one request at most; the gateway's own limits are 1,000 and 4 MiB.
MAX_ITEMS, MAX_BYTES = 500, 2 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one submission of many: `task` or `error`."""

    submission: Submission
    task: Task | None = None
    error: DispatchError | None = None
    replayed: bool = False  #: its idempotency key had been used: `task` is that of its first request

    def unwrap(self) -> Task:
        """The accepted task.

        Raises:
            DispatchError: why it was not accepted.
        """
        if self.task is None:
            raise self.error or DispatchError("no verdict")
        return self.task


@dataclasses.dataclass(slots=True)
class _Item:
    submission: Submission
    body: bytes
    verdict: Verdict | None = None

    def refuse(self, error: DispatchError) -> None:
        error.idempotency_key = self.submission.key
        self.verdict = Verdict(self.submission, error=error)


def submit_many(submissions: Iterable[Submission], setting: Setting) -> Flow[list[Verdict]]:
    """Submit tasks in batches.

    Args:
        submissions: a key is made for those without one.
        setting: the client's; the policy's time begins again with each batch.

    Returns:
        A verdict each, in their order.

    Raises:
        DispatchError: nothing is known to be accepted, and the first batch as a whole failed for this reason.
    """
    items = [_Item(ready, _body(ready)) for ready in (submission.keyed() for submission in submissions)]
    failure: DispatchError | None = None
    for number, chunk in enumerate(_chunks(items)):
        if failure is None:
            failure = yield from _submit(chunk, setting)
            if failure is not None and not number and not any(item.verdict and item.verdict.task for item in chunk):
                raise failure
        for item in chunk:
            if item.verdict is None:
                item.refuse(_copy(failure))
    return [item.verdict for item in items if item.verdict]


def _submit(items: Sequence[_Item], setting: Setting) -> Flow[DispatchError | None]:
    """Submit one batch until each item has its verdict; the failure of a whole request otherwise."""
    began = setting.clock()
    tries, left = 0, list(items)
    while left:
        tries += 1
        within = max(0.0, setting.policy.total - (setting.clock() - began))
        try:
            verdicts = yield from perform(calls.submit_many([item.body for item in left]), setting, within)
        except DispatchError as exc:
            return exc
        again = [item for item, body in zip(left, verdicts, strict=True) if not _settle(item, body)]
        pauses = {id(item): _pause(item, setting, tries, setting.clock() - began) for item in again}
        left = [item for item in again if pauses[id(item)] is not None]  # of the others the last verdict stands
        if left:
            yield Sleep(max(pauses[id(item)] or 0.0 for item in left))
    return None


def _settle(item: _Item, body: VerdictBody) -> bool:
    """Note a verdict; whether it stands."""
    if body.task is not None:
        item.verdict = Verdict(item.submission, body.task, replayed=body.replayed)
        return True
    found = body.problem or {}
    after = found.get("retryAfter")
    problem = calls.problem_of(found, body.status, "", float(after) if isinstance(after, int | float) else None)
    error = errors.of_problem(problem)
    item.refuse(error)
    return not isinstance(error, (errors.TooManyRequests, errors.Unavailable, errors.IdempotencyKeyInProgress))


def _pause(item: _Item, setting: Setting, tries: int, elapsed: float) -> float | None:
    error = item.verdict.error if item.verdict else None
    return None if error is None else setting.policy.pause(error, Repeat.KEYED, tries=tries, elapsed=elapsed)


def _copy(failure: DispatchError | None) -> DispatchError:
    """An error of its own for each item, with the item's key."""
    if isinstance(failure, ApiError):
        made: DispatchError = type(failure)(failure.problem)
    else:
        made = (type(failure) if isinstance(failure, ConnectionFailed) else DispatchError)(str(failure))
        made.request_id = failure.request_id if failure else None
    made.__cause__ = failure
    return made


def _body(submission: Submission) -> bytes:
    return to_json({**submission.body(), "idempotencyKey": key_header(submission.key)})


def _chunks(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    chunk: list[_Item] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == MAX_ITEMS or size + len(item.body) > MAX_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.body) + 1
    if chunk:
        yield chunk
