"""``/v1/dead-letters``: find, redrive, discard. For operators, who see the tasks of all principals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

from dispatch.config import api_keys as keys
from dispatch.deadletters.bulk import BulkRedrive, BulkRedrives
from dispatch.deadletters.service import DeadLetterService, NoSuchDeadLetter, without_secrets
from dispatch.errors import InDoubt
from dispatch.gateway.contract import request_models, response_models
from dispatch.gateway.http import context, heavy, validation
from dispatch.gateway.http.operations import Operation, ResponseSpec, operation
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.reply import Reply, json_reply
from dispatch.gateway.views import mending
from dispatch.gateway.views.dead_letter_groups import filter_of
from dispatch.protocol import ids
from dispatch.protocol.audit import BEGIN, target_of
from dispatch.protocol.mending import AS_IT_WAS, Mend
from dispatch.protocol.record import Record
from dispatch.protocol.sealing import UNSEALED, SealError, Sealing
from dispatch.tasktypes.registry import TaskType

_JOBS_RETRY = 60  #: seconds after which a bulk redrive may be done
_REPEAT = 2  #: seconds after which a redrive in doubt may be repeated


class DeadLetterViews:
    """The operations on dead letters.

    Args:
        service: the operator's verbs.
        bulk: the bulk redrives that wait for a worker.
        types: the task types, whose models declare what is secret in a payload.
        sealing: opens a sealed payload.
    """

    def __init__(
        self,
        service: DeadLetterService,
        bulk: BulkRedrives,
        types: Mapping[str, TaskType],
        sealing: Sealing = UNSEALED,
    ) -> None:
        self._service = service
        self._bulk = bulk
        self._types = types
        self._sealing = sealing

    @operation(
        Operation(
            "GET", "/v1/dead-letters", "listDeadLetters", "Dead letters", "List all principals' dead letters, newest first",
            (ResponseSpec(200, "A page.", response_models.DeadLetterListModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
            query=request_models.DeadLetterQuery,
        )
    )  # fmt: skip
    def index(self) -> Reply:
        """A page of dead letters."""
        query = validation.read_query(request_models.DeadLetterQuery)
        page = validation.page(lambda: self._service.page(filter_of(query), limit=query.limit, cursor=query.cursor))
        return json_reply({"items": [show(record) for record in page.items], "next": page.next})

    @operation(
        Operation(
            "GET", "/v1/dead-letters/{taskId}", "getDeadLetter", "Dead letters", "Look at a dead letter",
            (ResponseSpec(200, "The letter, with its payload.", response_models.DeadLetterDetailModel, ("Cache-Control",)),),
            scope=keys.DEADLETTERS_READ,
            problems=("task-not-found",),
        )
    )  # fmt: skip
    def get(self, task_id: str) -> Reply:
        """One dead letter."""
        record = self._service.find(_checked(task_id))
        return json_reply({**show(record), "payload": payload_of(record, self._types, self._sealing)})

    @operation(
        Operation(
            "POST", "/v1/dead-letters/{taskId}/redrive", "redriveDeadLetter", "Dead letters", "Send a dead letter again",
            (ResponseSpec(202, "Recorded, confirmed and routed: the same task in its next cycle.", response_models.TaskModel, ("Location",)),),
            scope=keys.DEADLETTERS_WRITE,
            audited=True,
            description="With a `payload` or `fresh` the task's message is another one from then on, and the handler's `idempotency_key` "
            "becomes `<taskId>.<cycle>`. A `payload` needs the right to submit such a task (`tasks:write`), too. It is sent as it is "
            "given: a secret that is shown as `[secret]` must be given itself (422).",
            body=request_models.RedriveBody, body_required=False,
            problems=(
                "task-not-found", "task-not-dead", "letter-too-large", "unknown-task-type", "gateway-busy", "broker-unavailable",
                "publish-unroutable", "publish-unconfirmed", "queue-depth-exceeded",
            ),
        )
    )  # fmt: skip
    def redrive(self, task_id: str) -> Reply:
        """Send one again."""
        raw, task_id = validation.read_optional_body(), _checked(task_id)
        mend = heavy.run(len(raw), lambda: mending.read(raw))
        if mend.payload is not None:
            record, _ = self._service.redrivable(task_id)
            task_type = mending.permitted(self._types, record.type, context.principal().scopes)
            mend = heavy.run(len(raw), lambda: mending.checked(mend, task_type))
        body = context.task_json(redrive_one(self._service, task_id, mend))
        return json_reply(body, 202, {"Location": body["statusUrl"]})

    @operation(
        Operation(
            "POST", "/v1/dead-letters/redrive", "redriveDeadLetters", "Dead letters", "Send many dead letters again",
            (
                ResponseSpec(202, "The workers will send them again.", response_models.BulkAnswerModel),
                ResponseSpec(200, "A dry run: only counted.", response_models.BulkAnswerModel),
            ),
            scope=keys.DEADLETTERS_WRITE,
            audited=True,
            description="The request is stored, so that it goes on when a worker dies on the way, until it is done or stopped (`jobId`).",
            body=request_models.BulkRedriveBody,
            problems=("too-many-jobs",),
        )
    )  # fmt: skip
    def redrive_many(self) -> Reply:
        """Count, or have the workers send many again."""
        order = validation.parse(request_models.BulkRedriveBody, validation.read_object())
        limit, rate = order.limit, order.rate_per_second
        bulk = BulkRedrive(filter_of(order.filter), limit, rate, context.principal().id)
        audit = context.current()
        audit.target = target_of(bulk.filter)
        matched = self._service.count(bulk.filter, most=limit)
        audit.details = {"matched": matched, "limit": limit, "ratePerSecond": rate, "dryRun": order.dry_run}
        requested = bool(matched) and not order.dry_run
        audit.idle = "" if requested else "dry-run" if order.dry_run else "no-match"
        if requested:
            if not self._bulk.add(bulk):
                raise Problem("too-many-jobs", retry_after=_JOBS_RETRY)
            audit.phase = BEGIN
        answer = response_models.BulkAnswerModel(
            job_id=bulk.id if requested else None,
            matched=matched,
            limit=limit,
            rate_per_second=rate,
            dry_run=order.dry_run,
        )
        return json_reply(answer.model_dump(by_alias=True), 200 if order.dry_run else 202)

    @operation(
        Operation(
            "DELETE", "/v1/dead-letters/{taskId}", "discardDeadLetter", "Dead letters", "Drop a dead letter",
            (ResponseSpec(204, "It is gone; the task's record stays for its time."),),
            scope=keys.DEADLETTERS_WRITE,
            audited=True,
            problems=("task-not-found",),
        )
    )  # fmt: skip
    def discard(self, task_id: str) -> Response:
        """Drop one."""
        self._service.discard(_checked(task_id), by=context.principal().id)
        return Response(status=204)


def show(record: Record) -> dict[str, Any]:
    """A dead letter as the API shows it."""
    return {
        **context.task_json(record),
        "principal": record.principal,
        "deadReason": record.dead_reason,
        "fingerprint": record.error_fingerprint,
    }


def payload_of(record: Record, types: Mapping[str, TaskType], sealing: Sealing = UNSEALED) -> Any:
    """What the client sent, from the recorded message, without its secrets; None when it can't be read (poison, no key).

    Args:
        record: a dead letter's.
        types: the task types; the secrets of an unknown type's payload are not known.
        sealing: opens a sealed payload.
    """
    if record.message is None:
        return None
    try:
        body = json.loads(sealing.open(record.message).body)
        return without_secrets(body, types.get(record.type))[0][0]
    except (ValueError, LookupError, TypeError, SealError):
        return None


def _checked(task_id: str) -> str:
    if not ids.is_task_id(task_id):
        raise NoSuchDeadLetter
    context.current().task_id = task_id
    return task_id


def redrive_one(service: DeadLetterService, task_id: str, mend: Mend = AS_IT_WAS) -> Record:
    """Send a dead letter again, for the principal of the current request.

    Args:
        service: the operator's verbs.
        task_id: its task.
        mend: what is to be another.

    Raises:
        Problem: 503, RabbitMQ did not confirm.
    """
    context.current().details = {**context.current().details, **mend.hop()}
    try:
        return service.redrive(task_id, by=context.principal().id, mend=mend)
    except InDoubt as exc:
        detail = "It is unknown whether the letter was sent. Repeating this is safe: one cycle runs once at most."
        raise Problem("publish-unconfirmed", detail, retry_after=_REPEAT, taskId=task_id) from exc
