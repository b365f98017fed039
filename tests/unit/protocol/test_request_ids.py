"""Our own request ids carry their time, so that a task is found by one without an index."""

import time

from dispatch.protocol import request_ids
from support.cases import each


def test_ours_are_valid_differ_and_have_the_time_at_which_they_were_made():
    before = int(time.time() * 1_000)
    made = [request_ids.new() for _ in range(100)]

    assert len(set(made)) == 100
    assert all(map(request_ids.is_valid, made))
    assert all(before <= request_ids.made_at(each) <= time.time() * 1_000 for each in made)


@each("text", ["rq-7", "a" * 32, "0" * 32, "019a0000000070008000000000000000"[:-1], "019A00000000700080000000000000A0"])
def test_others_have_no_time(text):
    assert request_ids.made_at(text) is None
    assert request_ids.needs_index(text, 0)


@each(("late", "needed"), [(0, False), (request_ids.WINDOW, False), (request_ids.WINDOW + 1, True), (-1, True)])
def test_a_time_that_does_not_lead_to_the_task_needs_an_index(late, needed):
    own = request_ids.new()

    assert request_ids.needs_index(own, request_ids.made_at(own) + late) is needed


@each("text", [None, 7, "", "a b", "a/b", "é", "a" * 129, "a\n", "{a}"])
def test_what_no_header_may_have_is_not_valid(text):
    assert not request_ids.is_valid(text)
