"""Lanes take turns, and each leaves a place to every other one."""

import types

from dispatch.worker.lines import LaneLines, OneLine
from dispatch.worker.pace import AHEAD


class Waiting:
    """A delivery in a line."""

    def __init__(self, name, lane="default"):
        self.name, self.wire = name, types.SimpleNamespace(type=lane)
        self.deliverable, self.over = True, False


def lines(places=4, lanes=2, seconds=lambda _type: 1.0):
    return LaneLines(lambda task_type: task_type, lanes=lanes, places=places, seconds=seconds)


def drained(line):
    """The names in the order in which they start, until none may."""
    found = []
    while line.peek() is not None:
        found.append(line.popleft())
    return found


def names(requests):
    return [request.name for request in requests]


def test_one_line_is_in_the_order_of_arrival():
    line = OneLine([Waiting("a"), Waiting("b")])
    line.extendleft([Waiting("z")])

    assert names(drained(line)) == ["z", "a", "b"]


def test_lanes_take_turns():
    line = lines(places=9)
    for name, lane in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")):
        line.append(Waiting(name, lane))

    assert (names(drained(line)), len(line)) == (["a1", "b1", "a2", "b2", "a3"], 0)


def test_a_lane_leaves_a_place_to_each_other_one_until_a_run_of_its_own_ends():
    line = lines(places=3)
    for number in range(4):
        line.append(Waiting(f"a{number}", "a"))
    running = drained(line)
    line.append(Waiting("b", "b"))
    other = drained(line)
    running[0].over = True
    then = drained(line)

    assert (names(running), names(other), names(then), len(line)) == (["a0", "a1"], ["b"], ["a2"], 1)


def test_short_runs_and_single_places_are_not_held_up():
    short, single = lines(seconds=lambda _type: AHEAD), lines(places=1, lanes=3)
    for number in range(9):
        short.append(Waiting(number, "a"))
        single.append(Waiting(number, "a"))

    assert (len(drained(short)), len(drained(single))) == (9, 1)


def test_what_the_broker_delivers_again_leaves_the_line_and_takes_no_place():
    line, gone = lines(places=2), [Waiting(number, "a") for number in range(5)]
    for each in gone:
        each.deliverable = False
        line.append(each)
    line.append(Waiting("here", "a"))

    assert names(drained(line)) == [0, 1, 2, 3, 4, "here"]


def test_what_is_given_back_is_first_and_counts_once():
    line, one = lines(places=2), Waiting("one", "a")
    line.append(one)
    line.append(Waiting("two", "a"))
    for _ in range(3):
        (started,) = drained(line)
        started.over = True  # its claim is given back …
        line.extendleft([started])
        started.over = False  # … and asked for again
        line._running["a"].clear()

    assert (started.name, len(line)) == ("one", 2)
    line.clear()
    assert (line.peek(), len(line)) == (None, 0)
