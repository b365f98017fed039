"""The message of a waiting task as Redis holds it: without what every message has, and without what its record has. Pure.

A message's JSON is some 1,200 bytes, of which a task's own are some 300. What is left out is put back from constants and
from the fields of the record beside it, so `unpacked` makes the same message of it. A message that is not as the gateway
makes them is stored whole, as is every later copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dispatch.protocol import names
from dispatch.protocol.message import (
    ACCEPTED_AT,
    ATTEMPT,
    CYCLE,
    PRINCIPAL,
    REQUEST_ID,
    SEQ,
    TRACEPARENT,
    Message,
    compact_json,
)

#: The first line of a packed message; no JSON begins with it.
_MARK = "p1"

#: Of Celery's protocol 2, around the payload: https://docs.celeryq.dev/en/stable/internals/protocol.html
_BEFORE, _AFTER = "[[", '], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

#: Headers with these values are left out.
_USUAL: dict[str, Any] = {
    "lang": "py", "shadow": None, "eta": None, "expires": None, "group": None, "group_index": None, "retries": 0,
    "parent_id": None, "argsrepr": "(…)", "kwargsrepr": "{}", "ignore_result": True, "replaced_task_nesting": 0,
    "stamped_headers": None, "stamps": {}, CYCLE: 0, SEQ: 0, ATTEMPT: 1,
}  # fmt: skip

#: Headers that a field of the record repeats, and the field.
_OF_RECORD = {
    PRINCIPAL: "principal",
    REQUEST_ID: "requestId",
    TRACEPARENT: "traceparent",
    ACCEPTED_AT: "createdAt",
}

#: Headers that are the record's id and type.
_IDENTITY = ("id", "root_id", "task")


def packed(message: Message, fields: Mapping[str, Any]) -> str:
    """A message to be stored beside its record.

    Args:
        message: a task's first.
        fields: of the record.

    Returns:
        The message, whole where it is not as usual.
    """
    headers, task_id = message.headers, message.headers.get("id")
    body = message.body
    usual = (
        body.isascii()
        and headers.get("root_id") == task_id == message.correlation_id
        and headers.get("task") == fields.get("type") != ""
        and message.routing_key == names.routing_key(message.type)
        and (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    )
    text = body.decode() if usual else ""
    if not usual or not text.startswith(_BEFORE) or not text.endswith(_AFTER) or "\n" in text:
        return message.to_json()
    put_back = _USUAL | {name: fields.get(field) for name, field in _OF_RECORD.items()}
    own = {
        name: value
        for name, value in headers.items()
        # Equality that JSON keeps: 1 is no True, and no 1.0.
        if name not in put_back or value != put_back[name] or type(value) is not type(put_back[name])
    }
    for name in _IDENTITY:
        del own[name]
    absent = [name for name in put_back if name not in headers]
    return f"{_MARK}\n{text[len(_BEFORE) : -len(_AFTER)]}\n{compact_json([own, absent] if absent else [own])}"


def unpacked(text: str, task_id: str, fields: Mapping[str, Any]) -> Message:
    """The inverse of `packed`.

    Args:
        text: what is stored.
        task_id: of the record.
        fields: of the record, as text.
    """
    if not text.startswith(_MARK):
        return Message.from_json(text)
    _, payload, rest = text.split("\n", 2)
    own, *absent = json.loads(rest)
    kept = {name: fields.get(field, "") for name, field in _OF_RECORD.items()}
    if kept[ACCEPTED_AT]:
        kept[ACCEPTED_AT] = int(float(kept[ACCEPTED_AT]))
    headers = {**_USUAL, "stamps": {}, "task": fields.get("type", ""), "id": task_id, "root_id": task_id, **kept, **own}
    for name in absent[0] if absent else ():
        del headers[name]
    return Message(
        f"{_BEFORE}{payload}{_AFTER}".encode(),
        headers,
        correlation_id=task_id,
        routing_key=names.routing_key(headers["task"]),
    )
