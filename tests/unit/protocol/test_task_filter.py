"""Everything that a filter has must match."""

import dataclasses

from dispatch.protocol.record import Brief, State
from dispatch.protocol.task_filter import TaskFilter
from support.cases import each

BRIEF = Brief("echo", State.RETRY_WAIT, "boom", created_at=100, request_id="rq", labels={"a": "1", "b": "2"})


@each(
    "wanted",
    [
        {}, {"type": "echo"}, {"status": "PENDING"}, {"state": "RETRY_WAIT"}, {"error_type": "boom"}, {"request_id": "rq"},
        {"labels": {"a": "1"}}, {"labels": {"a": "1", "b": "2"}}, {"since": 100}, {"until": 101},
        {"type": "echo", "state": "RETRY_WAIT", "error_type": "boom", "request_id": "rq", "labels": {"b": "2"}, "since": 1, "until": 999},
    ],
)  # fmt: skip
def test_what_matches_in_all_is_chosen(wanted):
    assert TaskFilter(**wanted).matches(BRIEF)


@each(
    "wanted",
    [
        {"type": "ech"}, {"status": "FAIL"}, {"state": "QUEUED"}, {"error_type": "bo"}, {"request_id": "r"}, {"request_id": ""},
        {"labels": {"a": "2"}}, {"labels": {"a": "1", "c": "1"}}, {"since": 101}, {"until": 100},
        {"type": "echo", "labels": {"a": "1"}, "until": 1},
    ],
)  # fmt: skip
def test_what_differs_in_one_is_not(wanted):
    assert not TaskFilter(**wanted).matches(BRIEF)


def test_a_brief_that_was_read_in_part_is_enough_for_a_filter_that_needs_no_more():
    short = dataclasses.replace(BRIEF, created_at=0, request_id="", labels={})

    assert not TaskFilter(principal="ada", type="echo", error_type="boom").needs_more
    assert TaskFilter(principal="ada", type="echo", error_type="boom").matches(short)
