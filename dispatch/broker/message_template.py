"""The message of a task without `apply_async`: cut from what `apply_async` itself makes of a task type, and filled in.

Celery takes ten times as long for a message of which all but the task's id, our headers and the payload is the same each
time. A template is checked against `apply_async` when it is made; whatever does not fit it goes through `apply_async`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from celery import signals
from kombu.utils.json import JSONEncoder

from dispatch.protocol import names
from dispatch.protocol.message import Message
from dispatch.telemetry import tracing

#: What `apply_async` makes of a payload, a task id and our headers: message, exchange, routing key; not sealed.
Make = Callable[[Mapping[str, Any], str, Mapping[str, Any]], tuple[Message, str, str]]

#: Headers that have the task's id.
_IDS = ("id", "root_id")

#: As `kombu.serialization.dumps`, which makes an encoder for each message.
_encode = JSONEncoder().encode

#: What the first message of a template is made of, and the second, which checks it.
_SAMPLES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"cut": "here"}, "00000000-0000-7000-8000-000000000000"),
    ({"ä": [1, 2.5, None, {}], '"\\': "\u2028"}, "ffffffff-ffff-7fff-bfff-ffffffffffff"),
)


class MessageTemplate:
    """What all messages of one task type have in common, for one set of our headers.

    Args:
        sample: a message.
        payload: its payload.
        own: names of our headers.

    Raises:
        ValueError: the message is not built as expected.
    """

    def __init__(self, sample: Message, payload: Mapping[str, Any], own: tuple[str, ...]) -> None:
        before, cut, after = sample.body.partition(_encode(payload).encode())
        if not cut or not set(_IDS) <= set(sample.headers):
            raise ValueError("the payload or the task's id is not where it was")
        self._before, self._after = before, after
        self._headers = dict(sample.headers)
        self._own = own
        self._routing_key = sample.routing_key
        self._made_by = os.getpid()  # a header names the process

    def fits(self, headers: Mapping[str, Any]) -> bool:
        """Whether the template is for a message with these headers of ours, and nothing else takes part in making it."""
        return (
            tuple(headers) == self._own
            and self._made_by == os.getpid()
            and not (tracing.enabled() or signals.before_task_publish.receivers or signals.after_task_publish.receivers)
        )

    def fill(self, payload: Mapping[str, Any], task_id: str, headers: Mapping[str, Any]) -> Message:
        """The message of a task.

        Args:
            payload: JSON-ready.
            task_id: the task.
            headers: ours, which fit.
        """
        made = self._headers.copy()
        for name in _IDS:
            made[name] = task_id
        made.update(headers)
        return Message(
            body=b"".join((self._before, _encode(payload).encode(), self._after)),
            headers=made,
            correlation_id=task_id,
            routing_key=self._routing_key,
        )


def cut(make: Make, headers: Mapping[str, Any]) -> MessageTemplate | None:
    """Cut a template from what `apply_async` makes.

    Args:
        make: of one task type.
        headers: ours.

    Returns:
        The template; None where it would not make the same message.
    """
    (payload, task_id), *others = _SAMPLES
    sample, _, _ = make(payload, task_id, headers)
    try:
        template = MessageTemplate(sample, payload, tuple(headers))
    except ValueError:
        return None
    same = all(
        make(other, another_id, headers)
        == (template.fill(other, another_id, headers), names.TASK_EXCHANGE, sample.routing_key)
        for other, another_id in ((payload, task_id), *others)
    )
    return template if same else None
