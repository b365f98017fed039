"""Which tasks a list shows. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dispatch.protocol.record import Brief, State, Status


@dataclasses.dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks; what is not given matches any. All that is given must match."""

    principal: str | None = None
    type: str | None = None
    status: Status | str | None = None
    state: State | str | None = None
    error_type: str | None = None  #: of the last attempt that failed
    error_fingerprint: str | None = None  #: of that attempt's error, see `dispatch.protocol.fingerprints`
    request_id: str | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    parent_id: str | None = None
    since: int | None = None  #: accepted at this time or later, or submitted for such a time; epoch milliseconds
    until: int | None = None  #: the same, before this time

    @property
    def needs_more(self) -> bool:
        """Whether it chooses by what a brief has only where it was read."""
        given = (self.request_id, self.parent_id, self.since, self.until)
        return bool(self.labels) or any(each is not None for each in given)

    def matches(self, brief: Brief) -> bool:
        """Whether a task belongs to the list; its principal is the index's."""
        return (
            self.status in (None, brief.status)
            and self.state in (None, brief.state)
            and self.type in (None, brief.type)
            and self.error_type in (None, brief.error_type)
            and self.error_fingerprint in (None, brief.error_fingerprint)
            and self.request_id in (None, brief.request_id)
            and self.parent_id in (None, brief.parent_id)
            and (self.since is None or self.since <= brief.due_at)
            and (self.until is None or brief.due_at < self.until)
            and all(brief.labels.get(key) == value for key, value in self.labels.items())
        )
