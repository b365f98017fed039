"""``/ops/dead-letters``: what tasks died of, in groups and one by one, and what can be done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flask
from flask import Response

from dispatch.config import api_keys
from dispatch.deadletters.groups import GroupSurvey, survey_groups
from dispatch.deadletters.service import NoSuchDeadLetter, NotDead, TooLarge
from dispatch.errors import PublishError
from dispatch.gateway.contract import request_models
from dispatch.gateway.http import context, validation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import acts, filtering
from dispatch.gateway.ops.acts import Done, Question
from dispatch.gateway.ops.door import ROOT
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.pages import may, page
from dispatch.gateway.ops.task import DiscardTask, RedriveTask, pretty
from dispatch.gateway.parts import Parts
from dispatch.gateway.views import dead_letter_groups, dead_letters
from dispatch.protocol import ids
from dispatch.protocol.message import CHECKPOINT, SIGNATURE
from dispatch.protocol.record import Record
from dispatch.store.index import Page
from dispatch.tasktypes import masking

PATH = f"{ROOT}/dead-letters"

#: Dead letters that can be selected one by one: as many as a page has, and as many as fit into a URL.
MOST = 50

#: Characters of a header's value that are shown.
_LONGEST = 2_000


class DeadLetterPages:
    """The pages.

    Args:
        frame: renders them.
        parts: of the application.
    """

    def __init__(self, frame: Frame, parts: Parts) -> None:
        self._frame, self._parts = frame, parts

    @page("dead_letters", "/dead-letters", api_keys.DEADLETTERS_READ)
    def groups(self) -> Response:
        """What they died of."""
        found = self._frame.part(self._survey)
        older = filtering.older(PATH, found.value.next if found.value else None)
        return self._frame.page("dead_letters.html", found=found, older=older, given=dict(filtering.given()))

    @page("dead_letters_list", "/dead-letters/list", api_keys.DEADLETTERS_READ)
    def listing(self) -> Response:
        """Those that a filter matches."""
        path = f"{PATH}/list"
        if (tidied := filtering.tidied(path)) is not None:
            return tidied  # type: ignore[return-value]
        found, given = self._frame.part(self._page), filtering.without("cursor", "limit")
        return self._frame.page(
            "dead_letter_list.html",
            found=found,
            given=dict(filtering.given()),
            filtered=given,
            older=filtering.older(path, found.value.next if found.value else None),
            newest=filtering.url(path, given),
            redrive_all=filtering.url(f"{ROOT}/jobs/start", [("verb", "redrive"), *given]),
            discard_all=filtering.url(f"{ROOT}/jobs/start", [("verb", "discard"), *given]),
        )

    @page("dead_letters_one", "/dead-letters/<task_id>", api_keys.DEADLETTERS_READ)
    def show(self, task_id: str) -> Response:
        """One of them."""
        record = find(self._parts, task_id)
        payload = dead_letters.payload_of(record, self._parts.types, self._parts.settings.sealing)
        return self._frame.page(
            "dead_letter.html",
            record=record,
            payload=pretty(payload),
            headers=headers_of(record),
            mendable=record.type in self._parts.types,
            hops=self._frame.part(lambda: self._parts.tasks.hops(task_id)),
            path=f"{PATH}/{task_id}",
        )

    def _survey(self) -> GroupSurvey:
        query = validation.read_query(request_models.DeadLetterGroupQuery)
        wanted, most, seconds = dead_letter_groups.filter_of(query), dead_letter_groups.MOST, dead_letter_groups.SECONDS
        service, limit = self._parts.dead_letters, query.limit
        return validation.page(
            lambda: survey_groups(service, wanted, shown=limit, most=most, seconds=seconds, cursor=query.cursor)
        )

    def _page(self) -> Page:
        query = validation.read_query(request_models.DeadLetterQuery)
        wanted, limit = dead_letter_groups.filter_of(query), min(query.limit, MOST)
        return validation.page(lambda: self._parts.dead_letters.page(wanted, limit=limit, cursor=query.cursor))


def find(parts: Parts, task_id: str) -> Record:
    """A dead letter.

    Raises:
        NoSuchDeadLetter: there is none.
    """
    if not ids.is_task_id(task_id):
        raise NoSuchDeadLetter
    context.current().task_id = task_id
    return parts.dead_letters.find(task_id)


def headers_of(record: Record) -> list[tuple[str, str]]:
    """The headers of the recorded message, without what looks like a secret, and without its handler's state and the signature."""
    if record.message is None:
        return []
    headers = record.message.headers.items()
    plain = {name: value for name, value in headers if name not in (SIGNATURE, CHECKPOINT) and value is not None}
    shown = masking.masked(None, {name: _readable(value) for name, value in plain.items()}).value
    return [(name, str(value)[:_LONGEST]) for name, value in sorted(shown.items())]


def _readable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else repr(value)


class RedriveLetter(RedriveTask):
    """Send one again, from these pages."""

    rule = acts.rule(
        "dead_letters_redrive", "/dead-letters/<task_id>/redrive", "redriveDeadLetter", api_keys.DEADLETTERS_WRITE
    )

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        return dataclasses.replace(super().ask(task_id), back=f"{PATH}/{task_id}")

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        return dataclasses.replace(super().carry_out(form, task_id), to=after(task_id))


class DiscardLetter(DiscardTask):
    """Remove one, from these pages."""

    rule = acts.rule(
        "dead_letters_discard", "/dead-letters/<task_id>/discard", "discardDeadLetter", api_keys.DEADLETTERS_WRITE
    )

    def ask(self, task_id: str) -> Question:
        """As in `Act`."""
        return dataclasses.replace(super().ask(task_id), back=f"{PATH}/{task_id}")

    def carry_out(self, form: Mapping[str, str], task_id: str) -> Done:
        """As in `Act`."""
        return dataclasses.replace(super().carry_out(form, task_id), to=PATH)


def after(task_id: str) -> str:
    """The page of a dead letter that was sent again: the task's, where the visitor may see it."""
    return f"{ROOT}/tasks/{task_id}" if may(api_keys.TASKS_READ_ALL) else PATH


class _Selected:
    """An act on the dead letters that were selected one by one."""

    verb, done, effect, grave = "", "", "", False

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def ask(self) -> Question:
        """As in `Act`."""
        chosen = selected()
        count = len(chosen)
        noun = "this dead letter" if count == 1 else f"these {count} dead letters"
        refusal = "" if chosen else "No dead letter is selected."
        facts = [("Tasks", ", ".join(f"…{each[-8:]}" for each in chosen))]
        return Question(
            f"{self.verb} {noun}?", self.effect, f"{self.verb} {count}", count, f"{PATH}/list", facts, grave=self.grave, refusal=refusal
        )  # fmt: skip

    def carry_out(self, form: Mapping[str, str]) -> Done:
        """As in `Act`; one that is no dead letter any more does not keep it from the others."""
        del form
        chosen = selected()
        if not chosen:
            raise Problem("task-not-found", "No dead letter is selected.")
        request = context.current()
        request.target = f"{len(chosen)} selected"
        about = {**request.details, "taskIds": chosen}
        done = gone = 0
        try:
            for task_id in chosen:
                try:
                    self.act(task_id)
                    done += 1
                except (NoSuchDeadLetter, NotDead, TooLarge):
                    gone += 1
        except PublishError as exc:
            detail = f"{done} of {len(chosen)} were sent; RabbitMQ did not take the next one. Repeating this is safe."
            raise Problem("publish-unconfirmed", detail, retry_after=2) from exc
        finally:
            request.details = {**about, "done": done, "passedOver": gone}
        passed = (
            f"; {gone} could not be, as {'it is' if gone == 1 else 'they are'} too large or no longer dead"
            if gone
            else ""
        )
        return Done(f"{done} {'dead letter was' if done == 1 else 'dead letters were'} {self.done}{passed}.", PATH)

    def act(self, task_id: str) -> None:
        """Do it to one."""
        raise NotImplementedError


class RedriveSelected(_Selected):
    """Send some again."""

    rule = acts.rule(
        "dead_letters_redrive_some", "/dead-letters/selected/redrive", "redriveDeadLetters", api_keys.DEADLETTERS_WRITE
    )
    verb, done = "Redrive", "sent again"
    effect = "Each task goes back to the work queue at once, with all its attempts, the same payload and the same idempotency key."

    def act(self, task_id: str) -> None:
        """Do it to one."""
        self._parts.dead_letters.redrive(task_id, by=context.principal().id)


class DiscardSelected(_Selected):
    """Remove some."""

    rule = acts.rule(
        "dead_letters_discard_some", "/dead-letters/selected/discard", "discardDeadLetters", api_keys.DEADLETTERS_WRITE
    )
    verb, done, grave = "Discard", "discarded", True
    effect = "Their messages leave the dead-letter queue for good: they cannot be sent again. Their records stay for a while."

    def act(self, task_id: str) -> None:
        """Do it to one."""
        self._parts.dead_letters.discard(task_id, by=context.principal().id)


def selected() -> list[str]:
    """The tasks that the current request names, each once."""
    named = list(dict.fromkeys(flask.request.args.getlist("id")))
    chosen = [each for each in named if ids.is_task_id(each)]
    if len(chosen) > MOST or len(chosen) < len(named):
        raise Problem("validation-error", f"Select up to {MOST} dead letters of the list.")
    return chosen
