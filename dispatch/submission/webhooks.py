"""A task that has ended and asks for a webhook: its delivery is a task of its own, submitted once whatever crashes.

The delivery's id is derived from the task's id and cycle, so each that finds the task ended may submit it: the worker
that recorded the success, before its ack; the recorder, for each dead letter, before its ack; a redelivered copy that finds
its task ended. What the receiver gets is made then and travels with the delivery's message, which needs no record of the task.

Crash windows:

- after the end is recorded, before the delivery is submitted: the copy, or the dead letter, is unacked: it is delivered again,
  finds DONE, and leads here again;
- within the submission: those of `dispatch.store.tasks`; the next one finds what this one recorded and goes on with it;
- after it, before the ack: the next one finds a delivery that was accepted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dispatch.crashpoints import reach
from dispatch.errors import NotSent
from dispatch.protocol import webhooks
from dispatch.protocol.message import LAST_ERROR_TYPE, PARENT_ID, WEBHOOK, Message
from dispatch.protocol.record import Record, State
from dispatch.protocol.webhooks import TYPE, Webhook
from dispatch.store.tasks import TaskStore
from dispatch.store.transitions import hop
from dispatch.submission.submitter import Accepted, Submission, Submitter
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logger

log = logger(__name__)

#: Submissions of one delivery that the broker may refuse for good: it was full each time.
MAX_REFUSALS = 200


class NoWebhook(Exception):
    """The task has no webhook, or has not ended."""


class WebhookSubmitter:
    """Submits the deliveries of webhooks. Thread-safe.

    Args:
        submitter: the way that clients' tasks take.
        tasks: the records.
        types: the task types.
    """

    def __init__(self, submitter: Submitter, tasks: TaskStore, types: Mapping[str, TaskType]) -> None:
        self._submitter = submitter
        self._tasks = tasks
        self._types = types

    def ended(self, message: Message, *, dead: bool = False) -> None:
        """Do what the end of a task, or of a delivery, asks for; safe to repeat.

        Args:
            message: a copy of the task, of the cycle that has ended.
            dead: it is a dead letter.

        Raises:
            PublishError: the delivery is not submitted, or that is unknown.
            StoreError: the same.
        """
        if message.type == TYPE:
            self._note_delivery(message, dead=dead)
        wanted = webhooks.read(message.text(WEBHOOK))
        record = None if wanted is None else self._tasks.get(message.task_id)
        if wanted is None or record is None or record.cycle != message.cycle:
            return  # a later cycle has its own end; without a record, Redis has lost its data since
        self.announce(record)

    def announce(self, record: Record) -> None:
        """Submit the delivery of a task's end, if it asks for one; safe to repeat.

        Args:
            record: as it has ended.

        Raises:
            PublishError: the delivery is not submitted, or that is unknown.
            StoreError: the same.
        """
        wanted, event = Webhook.of(record.webhook), webhooks.event_of(record.state)
        if wanted is not None and event is not None and event in wanted.events:
            self._deliver(record, wanted, event)

    def again(self, record: Record, *, principal: str, request_id: str, traceparent: str) -> Accepted:
        """Deliver once more what a task's receiver has got, or should have got.

        Args:
            record: of the task.
            principal: whose delivery it is.
            request_id: of the request for it.
            traceparent: the same.

        Raises:
            NoWebhook: there is nothing to deliver.
            PublishError: see `Submitter.submit`.
            StoreError: the same.
        """
        wanted, event = Webhook.of(record.webhook), webhooks.event_of(record.state)
        if wanted is None or event is None:
            raise NoWebhook
        submission = dataclasses.replace(
            self._submission(record, wanted), principal=principal, request_id=request_id, traceparent=traceparent
        )
        accepted = self._submitter.submit(submission)
        self._tasks.note(record.task_id, hop("webhook", event=event, deliveryId=accepted.record.task_id))
        return accepted

    def _deliver(self, record: Record, wanted: Webhook, event: str) -> None:
        for refused in range(MAX_REFUSALS):
            delivery = webhooks.nth_delivery(record, refused)
            begun = self._tasks.whole(delivery)
            if begun is not None and begun.state is State.REJECTED:
                continue
            if begun is None or (not begun.published and begun.state is State.SCHEDULED):
                submission = dataclasses.replace(self._submission(record, wanted), task_id=delivery)
                if begun is not None:
                    submission = dataclasses.replace(submission, begun=begun.message)
                self._submitter.submit(submission)
                reach("webhook.submitted")
                self._tasks.note(record.task_id, hop("webhook", event=event, deliveryId=delivery))
            return
        raise NotSent(f"the broker has refused the webhook of task {record.task_id} {MAX_REFUSALS} times")

    def _submission(self, record: Record, wanted: Webhook) -> Submission:
        payload = {
            "url": wanted.url, "eventId": webhooks.event_id(record), "body": webhooks.document(record),
        }  # fmt: skip
        return Submission(
            principal=record.principal,
            type=self._types[TYPE],
            payload=payload,
            fingerprint="",
            idempotency_key=None,
            request_id=record.request_id or "",
            traceparent=record.traceparent or "",
            parent_id=record.task_id,
        )

    def _note_delivery(self, message: Message, *, dead: bool) -> None:
        """The outcome of a delivery, among the hops of its task."""
        parent = message.text(PARENT_ID)
        if not parent:
            return
        if dead:
            error = message.text(LAST_ERROR_TYPE)
            self._tasks.note(parent, hop("webhook-failed", deliveryId=message.task_id, errorType=error))
        else:
            self._tasks.note(parent, hop("webhook-delivered", deliveryId=message.task_id))
