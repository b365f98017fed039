"""The first hops of a task, accepted and published, which its record holds while it waits (``lua/task/_common.lua``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dispatch.protocol import names
from dispatch.protocol.ids import trace_id
from dispatch.protocol.message import TRACEPARENT, Message
from dispatch.store.transitions import hop, hop_text
from dispatch.telemetry import tracing

#: The record's fields, and the beginning of the hop that each one holds: a time in epoch milliseconds, and the hop's other fields.
FIRST_HOPS = {"hop1": '{"seq":1,"at":%s,"kind":"accepted"', "hop2": '{"seq":2,"at":%s,"kind":"published"'}


def first_hops(fields: Sequence[str | None]) -> list[str]:
    """The hops that a record holds, as JSON.

    Args:
        fields: the values of `FIRST_HOPS`; None where it holds none.
    """
    held = []
    for text, start in zip(fields, FIRST_HOPS.values(), strict=True):
        if text:
            digits = len(text) - len(text.lstrip("0123456789"))
            held.append(start % text[:digits] + text[digits:])
    return held


def accepted_hop(message: Message) -> str:
    """The hop of an acceptance; a span that its record's traceparent names is left out."""
    return hop("accepted", message) if _has_other_span(message) else '{"kind":"accepted"}'


def published_hop(message: Message, **details: Any) -> str:
    """The hop of a confirmed publish; the usual way of a task of its type is left out, and the span as in `accepted_hop`.

    Args:
        message: what was published.
        details: about it: exchange, routingKey, confirmMs, until.
    """
    if (details.get("exchange"), details.get("routingKey")) == (names.TASK_EXCHANGE, names.routing_key(message.type)):
        del details["exchange"], details["routingKey"]
    if _has_other_span(message):
        return hop("published", message, **details)
    return hop_text("published", {name: value for name, value in details.items() if value is not None})


def arrived_hop(message: Message) -> str:
    """The same where the confirm is not recorded yet: from the copy that arrived, without the time of the confirm."""
    way = {"exchange": names.TASK_EXCHANGE, "routingKey": message.routing_key}
    return hop("published", **({} if way == _usual(message.type) else way))


def read(line: str, task_type: str | None, traceparent: str | None) -> dict[str, Any]:
    """A hop from its JSON, with what was left out.

    Args:
        line: the JSON.
        task_type: the task's; None where its record is gone.
        traceparent: the record's.
    """
    entry: dict[str, Any] = json.loads(line)
    if entry["kind"] not in ("accepted", "published"):
        return entry
    way = _usual(task_type) if task_type and entry["kind"] == "published" and "exchange" not in entry else {}
    span = {"spanId": traceparent.split("-")[2]} if traceparent and trace_id(traceparent) else {}
    return {**span, **entry, **way}


def _has_other_span(message: Message) -> bool:
    """Whether a span is recorded that the traceparent of its record does not name."""
    traceparent, span = message.text(TRACEPARENT), tracing.current().span_id
    return bool(span) and not (traceparent and trace_id(traceparent) and traceparent.split("-")[2] == span)


def _usual(task_type: str) -> dict[str, str]:
    return {"exchange": names.TASK_EXCHANGE, "routingKey": names.routing_key(task_type)}
