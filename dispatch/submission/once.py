"""Submit a task under an id that is derived from what submits it: a repeated step submits nothing twice.

Crash windows: those of `dispatch.store.tasks` and `dispatch.store.children`, of which each ends with the repeated step.
"""

from __future__ import annotations

import dataclasses

from dispatch.config.groups import GatewaySettings
from dispatch.crashpoints import reach
from dispatch.errors import Throttled
from dispatch.protocol.ids import derived_id, issued_at
from dispatch.protocol.record import Record, State
from dispatch.store.children import KEPT, ChildEntries, ChildEntry
from dispatch.store.tasks import TaskStore
from dispatch.submission.quotas import limits, used_up
from dispatch.submission.submitter import Submission, Submitter

#: Submissions under one derived id that the broker has refused before the last one's refusal is the caller's.
_REFUSALS = 10


class OnceSubmitter:
    """Submits what has a derived id. Thread-safe.

    Args:
        submitter: the way that clients' tasks take.
        tasks: the records.
        entries: what was submitted.
        settings: quotas.
    """

    def __init__(
        self, submitter: Submitter, tasks: TaskStore, entries: ChildEntries, settings: GatewaySettings
    ) -> None:
        self._submitter = submitter
        self._tasks = tasks
        self._entries = entries
        self._settings = settings

    def submit(self, submission: Submission, *, family: str, kept: int = KEPT, free: bool = False) -> str:
        """Submit a task, unless it was submitted before.

        Args:
            submission: with the derived id.
            family: whose entries it is noted in: a task's id, or its own.
            kept: milliseconds for which it is noted.
            free: no quota refuses it.

        Returns:
            The id that it has: another one than the derived one where the broker has refused that.

        Raises:
            Throttled: a quota is used up.
            PublishError: as `Submitter.submit`; the repeated step goes on.
            StoreUnavailable: the same.
        """
        first = submission.task_id
        entry, new = self._entries.reserve(family, first, kept)
        reach("child.reserved")
        begun = None if new else self._begun(entry)
        for _ in range(_REFUSALS):
            if entry.accepted:
                return entry.task_id
            if begun is None or begun.state is not State.REJECTED:
                break
            millis = round((issued_at(first) or 0) * 1_000)
            following = ChildEntry(derived_id(millis, entry.task_id))
            entry = self._entries.advance(family, first, entry, following, kept)
            begun = self._begun(entry)
        task_id = self._accept(dataclasses.replace(submission, task_id=entry.task_id), begun, free=free)
        reach("child.submitted")
        self._entries.advance(family, first, entry, ChildEntry(task_id, accepted=True), kept)
        return task_id

    def _begun(self, entry: ChildEntry) -> Record | None:
        return None if entry.accepted else self._tasks.whole(entry.task_id)

    def _accept(self, submission: Submission, begun: Record | None, *, free: bool) -> str:
        if begun is None:
            if not free:
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
