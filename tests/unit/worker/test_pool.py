"""What children report is read in bulk: every message is handled, whatever parts it comes in and whatever another one raises."""

import os
import pickle
import struct

import pytest

from dispatch.worker.patches.pool import ResultHandler


def framed(value):
    data = pickle.dumps(value)
    return struct.pack(">i", len(data)) + data


class World:
    """A pipe as a child's, and the reading of it."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.handled, self.registered = [], []
        self.handler = object.__new__(ResultHandler)
        self.handler.begun, self.handler.on_state_change = {}, self.handle

    def handle(self, message):
        self.handled.append(message)
        if message == "bad":
            raise ValueError(message)

    def reading(self):
        register = lambda *args: self.registered.append(args)  # noqa: E731
        return self.handler._recv_message(register, self.reader, self.handle)


@pytest.fixture
def world():
    made = World()
    yield made
    for fd in (made.reader, made.writer):
        os.close(fd)


def test_what_has_arrived_is_handled_at_once_and_the_pipe_stays_registered_as_it_is(world):
    os.write(world.writer, framed("a") + framed("b") + framed("c"))

    assert list(world.reading()) == []
    assert world.handled == ["a", "b", "c"]
    assert world.registered == []


def test_a_message_in_parts_is_handled_when_its_last_one_is_there(world):
    first, second = framed("a"), framed("x" * 50)
    os.write(world.writer, first + second[:10])
    reading = world.reading()
    next(reading)
    assert world.handled == ["a"]
    os.write(world.writer, second[10:])

    assert list(reading) == []
    assert world.handled == ["a", "x" * 50]
    assert len(world.registered) == 1  # the event loop reads by the generator now, and has to read as before


def test_a_message_whose_handling_raises_does_not_cost_the_others(world):
    os.write(world.writer, framed("a") + framed("bad") + framed("c"))

    with pytest.raises(ValueError, match="bad"):
        next(world.reading())
    assert world.handled == ["a", "bad", "c"]


def test_the_end_of_the_pipe_is_no_message(world):
    os.write(world.writer, framed("a")[:3])
    os.close(world.writer)
    world.writer = os.open(os.devnull, os.O_RDONLY)

    with pytest.raises(OSError, match="within a message"):
        next(world.reading())
    with pytest.raises(EOFError):
        next(world.reading())


def test_without_an_event_loop_what_has_arrived_is_taken_and_the_rest_of_a_message_later(world):
    first, second = framed("a"), framed("x" * 50)
    os.write(world.writer, first + second[:10])
    taken = world.handler.take(world.reader)
    os.write(world.writer, second[10:] + framed("c"))

    assert (taken, world.handler.take(world.reader), world.handled) == (True, True, ["a", "x" * 50, "c"])


def test_a_message_in_parts_is_handled_though_the_event_loop_that_has_read_the_first_one_is_reset(world):
    message = framed("x" * 50)
    os.write(world.writer, message[:10])
    next(world.reading())  # and dropped
    os.write(world.writer, message[10:])

    assert list(world.reading()) == []
    assert world.handled == ["x" * 50]


def test_nothing_more_comes_from_a_pipe_that_has_ended():
    world = World()
    os.write(world.writer, framed("a"))
    os.close(world.writer)
    try:
        assert (world.handler.take(world.reader), world.handler.take(world.reader), world.handled) == (
            True,
            False,
            ["a"],
        )
    finally:
        os.close(world.reader)
