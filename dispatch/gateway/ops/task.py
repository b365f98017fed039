"""``/ops/tasks/<id>``: everything that is known about one task, live; and what can be done with it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.control.service import RETRIED
from dispatch.errors import StoreError
from dispatch.gateway.http import context
from dispatch.gateway.http.long_poll import WaitingRoom
from dispatch.gateway.ops import acts, live, timeline
from dispatch.gateway.ops.acts import Done, Question
from dispatch.gateway.ops.door import Door
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import may, page, visitor
from dispatch.gateway.ops.tasks import PATH
from dispatch.gateway.parts import Parts
from dispatch.gateway.views import control as control_view
from dispatch.gateway.views import dead_letters as dead_letter_view
from dispatch.gateway.views import task_access, task_search
from dispatch.protocol.record import Record, State
from dispatch.protocol.sealing import SealError, Sealing
from dispatch.store.index import Page
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes import masking
from dispatch.tasktypes.masking import MaskedPayload
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType

#: Children that the page lists.
CHILDREN = 20

#: Seconds between two updates of an open page at least: a handler may report its progress more often.
PACE = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Button:
    """What can be done with the task now."""

    href: str
    label: str
    grave: bool = False
    opens: bool = False  #: a page that has more, and not a question


class TaskPage:
    """The page.

    Args:
        frame: renders it.
        parts: of the application.
        door: who may go on watching.
        room: places of event streams.
    """

    def __init__(self, frame: Frame, parts: Parts, door: Door, room: WaitingRoom) -> None:
        self._frame, self._parts, self._door, self._room = frame, parts, door, room

    @page("task", "/tasks/<task_id>", api_keys.TASKS_READ)
    def show(self, task_id: str) -> Response:
        """The page."""
        record = self._find(task_id)
        part, tasks = self._frame.part, self._parts.tasks
        hops = part(lambda: tasks.hops(task_id))
        return self._frame.page(
            "task.html",
            record=record,
            body=task_access.shown(record),
            hops=hops,
            timeline=timeline.draw(hops.value or [], record, time.time() * 1_000),
            attempts=timeline.attempts(hops.value or []),
            result=pretty(record.result),
            children=part(lambda: self._children(record)),
            parent=record.parent_id,
            checkpoint=record.step > 0,
            buttons=list(buttons(record)),
        )

    @page("task_payload", "/tasks/<task_id>/payload", api_keys.TASKS_READ)
    def payload(self, task_id: str) -> Response:
        """What was submitted, without its secrets: a part of the page, shown on demand since reading it may be audited."""
        context.current().operation = "getTaskPayload"
        record = task_access.find(self._parts.tasks.whole, task_id, self._parts.settings.result_ttl)
        shown = task_search.payload_of(record, self._parts.types, self._parts.settings.sealing)
        state = checkpoint_of(record, self._parts.types.get(record.type), self._parts.settings.sealing)
        masked = len(shown.places) + (len(state.places) if state else 0)
        kept = pretty(state.value) if state else ""
        return self._frame.fragment("payload.html", payload=pretty(shown.value), checkpoint=kept, masked=masked)

    @page("task_live", "/tasks/<task_id>/live", api_keys.TASKS_READ)
    def live(self, task_id: str) -> Response:
        """An event at each change."""
        record = self._find(task_id)
        over, seen = live.ending(self._door, context.current().scope), flask.request.args.get("revision", "")
        revision = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 16 else record.revision
        return live.stream(self._room, changes(self._parts.tasks, record, revision, over))

    def _find(self, task_id: str) -> Record:
        return task_access.find(self._parts.tasks.get, task_id, self._parts.settings.result_ttl)

    def _children(self, parent: Record) -> Page:
        return self._parts.tasks.list(principal=parent.principal, parent_id=parent.task_id, limit=CHILDREN, cursor=None)


def changes(tasks: TaskStore, record: Record, revision: int, over: Callable[[], bool]) -> Iterator[str]:
    """A stream of changes of a task, until it has ended.

    Args:
        tasks: the records.
        record: the task.
        revision: of the record that the page shows.
        over: whether the stream is to end.
    """
    yield "retry: 2000\n\n"
    end = time.monotonic() + live.LONGEST
    try:
        if record.revision != revision:
            revision = record.revision
            yield live.event("changed", str(revision))
        while not record.state.terminal and time.monotonic() < end and not over():
            changed = tasks.wait(record.task_id, revision, live.HEARTBEAT, over)
            if changed is None or over():
                return
            if changed.revision == revision:
                yield ": keep-alive\n\n"
                continue
            record, revision = changed, changed.revision
            yield live.event("changed", str(revision))
            time.sleep(PACE)
        if record.state.terminal:
            yield live.event("ended", "")
    except StoreError:
        return


def checkpoint_of(record: Record, kind: TaskType | None, sealing: Sealing) -> MaskedPayload | None:
    """What the task's next step finds, without its secrets; None without it, or when it can't be read here.

    Args:
        record: a whole one.
        kind: its type; of one that is not known here only the form is shown.
        sealing: opens it.
    """
    if record.checkpoint is None:
        return None
    try:
        state = json.loads(sealing.open_text(record.checkpoint))
    except (ValueError, SealError):
        return None
    model = kind.state if kind is not None and kind.state is not None and issubclass(kind.state, Payload) else None
    return masking.masked(model, state) if kind is not None else masking.closed(state)


def buttons(record: Record) -> Iterator[Button]:
    """What the visitor can do with a task now."""
    path = f"{PATH}/{record.task_id}"
    if record.state in RETRIED and may(api_keys.TASKS_CONTROL):
        yield Button(f"{path}/retry-now", "Retry now" if record.state is State.RETRY_WAIT else "Run now")
    if record.is_dead_letter and may(api_keys.DEADLETTERS_WRITE):
        yield Button(f"{path}/redrive", "Redrive")
        if may(api_keys.DEADLETTERS_READ):
            yield Button(f"/ops/dead-letters/{record.task_id}", "Payload, mend …", opens=True)
        yield Button(f"{path}/discard", "Discard", grave=True)
    if not record.state.terminal and (may(api_keys.TASKS_CONTROL) or _is_own(record)):
        yield Button(f"{path}/cancel", "Cancel", grave=True)


def _is_own(record: Record) -> bool:
    return record.principal == visitor().principal.id and may(api_keys.TASKS_WRITE)


def pretty(value: Any) -> str:
    """JSON to read; empty for nothing."""
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def facts(record: Record) -> Sequence[tuple[str, str]]:
    """What an act's question shows of a task."""
    return (
        ("Task", record.task_id),
        ("Type", record.type),
        ("State", record.state.value),
        ("Attempt", f"{record.attempt} of {record.max_attempts}"),
    )


class _OnTask:
    """What acts on one task have in common."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def question(self, record: Record, title: str, effect: str, button: str, **more: Any) -> Question:
        return Question(title, effect, button, 1, f"{PATH}/{record.task_id}", facts(record), **more)

    def controlled(self, task_id: str) -> Record:
        return task_access.find_controlled(self._parts.tasks.get, task_id, self._parts.settings.result_ttl)

    def letter(self, task_id: str) -> Record:
        return self._parts.dead_letters.find(task_id)


class CancelTask(_OnTask):
    """Cancel a task."""

    rule = acts.rule("cancel", "/tasks/<task_id>/cancel", "cancelTask", api_keys.TASKS_WRITE, api_keys.TASKS_CONTROL)

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        record = self.controlled(task_id)
        running = record.state in (State.RUNNING, State.WAITING)
        effect = (
            "Its handler is asked to stop, and undoes at the other side what it can; after a grace it is ended. A success that comes first stands."
            if running
            else "It ends as CANCELLED at once and never runs again."
        )
        refusal = f"It has ended: {record.state.value}." if record.state.terminal else ""
        return self.question(record, "Cancel this task?", effect, "Cancel the task", grave=True, refusal=refusal)

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        del form
        record = self._parts.control.cancel(self.controlled(task_id).task_id, by=context.principal().id)
        cancelled = record.state is State.CANCELLED
        return Done("The task is cancelled." if cancelled else "The task was asked to stop.", f"{PATH}/{task_id}")


class RetryNow(_OnTask):
    """End a task's wait."""

    rule = acts.rule("retry_now", "/tasks/<task_id>/retry-now", "retryTaskNow", api_keys.TASKS_CONTROL)

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        record = self.controlled(task_id)
        refusal = "" if record.state in RETRIED else f"It does not wait: {record.state.value}."
        effect = (
            "Its next attempt goes to the work queue at once; the copy that waits becomes stale. No attempt is used up."
        )
        return self.question(record, "End this task's wait?", effect, "Send it now", refusal=refusal)

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        del form
        control_view.send_now(self._parts.control, self.controlled(task_id).task_id)
        return Done("The next attempt is in the work queue.", f"{PATH}/{task_id}")


class RedriveTask(_OnTask):
    """Send a dead letter again, as it was."""

    rule = acts.rule("redrive", "/tasks/<task_id>/redrive", "redriveDeadLetter", api_keys.DEADLETTERS_WRITE)

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        record = self.letter(task_id)
        effect = (
            "The task goes back to the work queue with all its attempts, the same payload and the same idempotency key."
        )
        return self.question(record, "Send this dead letter again?", effect, "Redrive")

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        del form
        dead_letter_view.redrive_one(self._parts.dead_letters, task_id)
        return Done("The task is on its way again.", f"{PATH}/{task_id}")


class DiscardTask(_OnTask):
    """Remove a dead letter."""

    rule = acts.rule("discard", "/tasks/<task_id>/discard", "discardDeadLetter", api_keys.DEADLETTERS_WRITE)

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        effect = (
            "Its message leaves the dead-letter queue for good: it cannot be sent again. Its record stays for a while."
        )
        return self.question(self.letter(task_id), "Discard this dead letter?", effect, "Discard for good", grave=True)

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        del form
        self._parts.dead_letters.discard(task_id, by=context.principal().id)
        return Done("The dead letter is discarded.", f"{PATH}/{task_id}")
