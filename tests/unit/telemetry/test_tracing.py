"""Tracing while no spans are recorded: nothing is instrumented, nothing changes."""

import pytest

from dispatch.errors import ConfigurationError
from dispatch.protocol.message import Message
from dispatch.telemetry import tracing
from support.gateway_fakes import World, record

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize(
    "variables", [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}]
)
def test_it_is_off_unless_asked_for(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert not tracing.start("gateway")
    assert not tracing.enabled()


def test_an_unknown_exporter_is_refused_at_start(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")

    with pytest.raises(ConfigurationError, match="'zipkin' is not one of otlp, console, none"):
        tracing.start("gateway")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "'http/json' is not http/protobuf"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000", "OTEL_.*max_export_batch_size"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-3", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_start(monkeypatch, name, value, expected):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext")  # `start` would set it for good
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=expected):
        tracing.start("gateway")


def test_off_messages_keep_their_trace_and_spans_record_nothing():
    message = Message(b"", {"id": "t", "traceparent": TRACEPARENT})
    with tracing.span("x") as span, tracing.publish(message, "e"), tracing.detail("redis", {}):
        span.set({"a": 1})
        span.fail("ValueError")

    assert tracing.stamped(message, "c" * 16) is message
    assert (tracing.current().trace_id, tracing.current().traceparent, tracing.exemplar(TRACEPARENT)) == (
        "",
        None,
        None,
    )
    assert tracing.messaging("send", message, "e") == {}


@pytest.mark.parametrize(
    ("span_id", "expected"),
    [("c" * 16, f"00-{'a' * 32}-{'c' * 16}-01"), ("0" * 16, TRACEPARENT), ("short", TRACEPARENT), (None, TRACEPARENT)],
)
def test_a_sibling_is_another_span_of_the_same_trace(span_id, expected):
    assert tracing.sibling(TRACEPARENT, span_id) == expected


def test_a_task_has_a_link_to_its_trace_only_where_one_is_configured():
    one = record(traceparent=TRACEPARENT)
    plain, linked = World(), World(options={"trace_url": "http://jaeger/trace/{traceId}"})
    bodies = []
    for world in (plain, linked):
        world.tasks.held[one.task_id] = one
        bodies.append(world.client().get(f"/v1/tasks/{one.task_id}").get_json())

    assert "traceUrl" not in bodies[0]
    assert bodies[1]["traceUrl"] == f"http://jaeger/trace/{'a' * 32}"
