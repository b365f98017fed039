"""Messages, ids, traces, and the record as clients see it."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.ids import child_traceparent, is_task_id, issued_at, new_task_id, timestamp, trace_id
from dispatch.protocol.message import BROKER_HEADERS, Copy, Message
from dispatch.protocol.record import ErrorInfo, Record, State, Status
from support.cases import each

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_every_state_has_a_status_and_terminal_means_success_or_fail():
    assert {state for state in State if state.terminal} == {
        State.SUCCEEDED,
        State.DEAD_LETTERED,
        State.EXPIRED,
        State.CANCELLED,
        State.REJECTED,
    }
    assert {state.status for state in State} == set(Status)


def test_a_new_id_carries_its_time():
    assert issued_at(new_task_id()) is not None
    assert issued_at("not-ours") is None


@each("text", ["", None, 7, "a b", "x" * 129, "ä", "a/b", "a\n"])
def test_what_cannot_be_a_task_id(text):
    assert not is_task_id(text)


@each(("millis", "text"), [(2**62, "9999-12-31T23:59:59.000Z"), (-(2**62), "1970-01-01T00:00:00.000Z")])
def test_a_time_without_a_date_is_the_nearest_that_has_one(millis, text):
    assert timestamp(millis) == text


def test_times_are_utc_with_milliseconds():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(None) is None


def test_a_trace_is_continued_with_a_new_span():
    child = child_traceparent(TRACE)

    assert trace_id(child) == trace_id(TRACE)
    assert child != TRACE


@each("bad", [None, "", "junk", TRACE.upper(), "ff" + TRACE[2:], TRACE.replace("b7ad6b7169203331", "0" * 16)])
def test_an_invalid_traceparent_starts_a_new_trace(bad):
    assert trace_id(bad) is None
    assert trace_id(child_traceparent(bad)) is not None


def test_a_republished_message_keeps_its_body_and_loses_the_brokers_headers():
    headers = {"id": "t", "task": "echo", "x-seq": 1, **dict.fromkeys(BROKER_HEADERS, "x")}
    message = Message(b"[1]", headers).with_headers("x-dead-reason", **{"x-seq": 2})

    assert message.body == b"[1]"
    assert message.headers == {"id": "t", "task": "echo", "x-seq": 2}


@given(
    st.binary(max_size=200),
    st.dictionaries(st.text(max_size=9), st.one_of(st.none(), st.integers(), st.text(max_size=9))),
)
def test_a_message_survives_the_record(body, headers):
    message = Message(body, headers, "application/json", None, "c", "k")

    assert Message.from_json(message.to_json()) == message
    assert Copy.from_json(Copy(message, "x", "k", "q").to_json()) == Copy(message, "x", "k", "q")


@each("value", ["1", None, True, 1.5, [], {}])
def test_a_header_that_is_no_number_counts_as_missing(value):
    assert Message(b"", {"x-seq": value}).seq == 0


def test_a_message_without_a_usable_id_always_gets_the_same_one():
    one, other = Message(b"x", {}), Message(b"y", {})

    assert one.dead_letter_id == Message(b"x", {"x-delivery-count": 3, "x-death": [{"count": 1}]}).dead_letter_id
    assert one.dead_letter_id != other.dead_letter_id
    assert one.dead_letter_id != Message(b"x", {"task": "another"}).dead_letter_id


def test_a_record_looks_as_in_the_contract():
    record = Record(
        task_id="t", type="echo", principal="p", state=State.RETRY_WAIT, cycle=0, seq=1, attempt=2, max_attempts=4,
        revision=4, created_at=0, updated_at=1, next_attempt_at=60_000, queue="robot.retry.q.5m",
        error=ErrorInfo("upstream-timeout", "no answer", retryable=True), traceparent=TRACE,
    )  # fmt: skip
    shown = record.to_json()

    assert shown["status"] == "PENDING"
    assert shown["statusUrl"] == "/v1/tasks/t"
    assert shown["nextAttemptAt"] == "1970-01-01T00:01:00.000Z"
    assert shown["error"] == {
        "type": "upstream-timeout", "title": "Upstream timeout", "detail": "no answer", "retryable": True,
    }  # fmt: skip
    assert shown["traceId"] == trace_id(TRACE)
    assert set(shown) == {
        "taskId", "type", "status", "state", "statusUrl", "eventsUrl", "attempt", "maxAttempts", "cycle",
        "nextAttemptAt", "wakesAt", "queue", "progress", "result", "error", "labels", "requestId", "traceId", "createdAt", "updatedAt",
        "startedAt", "finishedAt", "revision", "cancelRequested", "waitingFor", "heldBy", "step", "concurrencyKey", "parentId", "deadlineAt", "webhook",
    }  # fmt: skip


def test_only_undiscarded_dead_letters_are_buried():
    dead = Record("t", "echo", "p", State.DEAD_LETTERED, 0, 0, 1, 4, 1, 0, 0)

    assert dead.is_dead_letter
    assert not dataclasses.replace(dead, discarded=True).is_dead_letter
    assert not dataclasses.replace(dead, state=State.SUCCEEDED).is_dead_letter
