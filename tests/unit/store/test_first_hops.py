"""The first hops of a task leave the span out that its record names, and no other one."""

import json
import types

import pytest

from dispatch.protocol.message import Message
from dispatch.store import hops
from dispatch.telemetry import tracing
from support.cases import each

OWN, OTHER = "adec1794c475852d", "bbbbbbbbbbbbbbbb"
TRACEPARENT = f"00-3b435f47d6e31dd590fe27732ced882a-{OWN}-01"
USUAL = {"exchange": "robot.task.topic", "routingKey": "robot.task.dispatch.echo"}


@pytest.fixture
def recorded(monkeypatch):
    def record(span):
        current = types.SimpleNamespace(span_id=span)
        monkeypatch.setattr(tracing, "_backend", types.SimpleNamespace(current=lambda: current) if span else None)

    return record


@each(
    ("traceparent", "span", "shown"),
    [
        (TRACEPARENT, "", {}),
        (TRACEPARENT, OWN, {}),
        (TRACEPARENT, OTHER, {"spanId": OTHER}),
        ("no-trace-of-ours", "", {}),
        ("no-trace-of-ours", OTHER, {"spanId": OTHER}),
        (None, OTHER, {"spanId": OTHER}),
    ],
)
def test_a_first_hop_has_the_span_that_its_record_does_not_name(traceparent, span, shown, recorded):
    recorded(span)
    message = Message(b"", {"task": "echo", "traceparent": traceparent})
    published = hops.published_hop(message, **USUAL, confirmMs=1.5, until=None)

    assert json.loads(hops.accepted_hop(message)) == {"kind": "accepted", **shown}
    assert json.loads(published) == {"kind": "published", "confirmMs": 1.5, **shown}


@each("way", [{**USUAL, "exchange": "robot.delay.21"}, {**USUAL, "routingKey": "robot.task.dispatch.other"}])
def test_a_hop_names_another_way_than_the_usual_one(way, recorded):
    recorded("")
    message = Message(b"", {"task": "echo", "traceparent": TRACEPARENT})

    assert json.loads(hops.published_hop(message, **way, confirmMs=None)) == {"kind": "published", **way}
