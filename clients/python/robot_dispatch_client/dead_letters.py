"""The verbs on dead letters."""

from __future__ import annotations

from typing import Any, Unpack

from robot_dispatch_client import filters, flows, models
from robot_dispatch_client.calls import Call, nothing, query, reading, segment
from robot_dispatch_client.filters import LetterFilters
from robot_dispatch_client.flows import Flow
from robot_dispatch_client.retries import Repeat
from robot_dispatch_client.submissions import PayloadLike, to_json
from robot_dispatch_client.tasks import id_of
from robot_dispatch_client.verbs import Pages, Verbs, flow_verb, paged_verb, verb


class DeadLetterVerbs(Verbs):
    """Look at what failed for good, send it again, mended perhaps, or drop it."""

    @paged_verb
    def dead_letters(self, *, page_size: int | None = None, **which: Unpack[LetterFilters]) -> Pages[models.DeadLetter]:
        """Dead letters, newest first, page by page."""
        given = {**filters.of_letters(which), "limit": page_size}
        read = reading(models.Page[models.DeadLetter])
        return Pages(lambda cursor: Call("GET", "/v1/dead-letters", read, params=query(given, cursor)))

    @verb
    def dead_letter(self, task: models.Task | str) -> Call[models.DeadLetter]:
        """A dead letter with its payload, without the payload's secrets."""
        return Call("GET", _path(task), reading(models.DeadLetter))

    @flow_verb
    def dead_letter_groups(self, **which: Unpack[LetterFilters]) -> Flow[list[models.DeadLetterGroup]]:
        """Dead letters by what they died of, the largest group first."""
        given, read = filters.of_letters(which), reading(models.Page[models.DeadLetterGroup])
        return flows.all_pages(
            lambda cursor: Call("GET", "/v1/dead-letters/groups", read, params=query(given, cursor)), self._setting
        )

    @verb
    def redrive(
        self, task: models.Task | str, payload: PayloadLike | None = None, *, fresh: bool = False
    ) -> Call[models.Task]:
        """Send a dead letter again, in its next cycle.

        Repeated only if it had no effect: after `ConnectionFailed`, read the task (`cycle`) before redriving it again.

        Args:
            task: it, or its id.
            payload: mended, instead of the one that it has: the whole of it, with the secrets that `dead_letter` masks.
            fresh: a new effect at the other side.
        """
        given: dict[str, Any] = {} if payload is None else {"payload": payload}
        given |= {"fresh": True} if fresh else {}
        path = f"{_path(task)}/redrive"
        return Call("POST", path, reading(models.Task), Repeat.UNSENT, (), to_json(given) if given else None)

    @verb
    def redrive_many(
        self, *, limit: int = 100, rate_per_second: float = 10.0, dry_run: bool = False, **which: Unpack[LetterFilters]
    ) -> Call[models.BulkRedrive]:
        """Have the workers redrive dead letters; repeated only if it had no effect.

        Args:
            limit: dead letters at most, oldest first.
            rate_per_second: dead letters a second at most.
            dry_run: only count them.
            which: see `LetterFilters`; all by default.
        """
        given = {name: value for name, value in filters.of_letters(which).items() if value is not None}
        body = {"filter": given, "limit": limit, "ratePerSecond": rate_per_second, "dryRun": dry_run}
        repeat = Repeat.SAFE if dry_run else Repeat.UNSENT  # a second one would be another job
        return Call("POST", "/v1/dead-letters/redrive", reading(models.BulkRedrive), repeat, (), to_json(body))

    @verb
    def discard(self, task: models.Task | str) -> Call[None]:
        """Drop a dead letter; `TaskNotFound` if it is none (any more)."""
        return Call("DELETE", _path(task), nothing)


def _path(task: models.Task | str) -> str:
    return f"/v1/dead-letters/{segment(id_of(task))}"
