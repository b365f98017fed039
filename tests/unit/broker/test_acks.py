"""Acks that wait for each other: each delivery is acked once, and never one that is still in hand."""

import random
import types

from dispatch.broker.acks import Acks


class Delivery:
    """A message that notes how it is acked."""

    def __init__(self, channel, tag):
        self.channel, self.delivery_tag, self._state = channel, tag, "RECEIVED"

    def ack_log_error(self, _log, _errors, multiple=False):
        self.channel.written.append((self.delivery_tag, multiple))
        self._state = "ACK"


def channel():
    return types.SimpleNamespace(connection=object(), written=[])


def deliveries(on, *tags):
    return [Delivery(on, tag) for tag in tags]


def receiving(acks, on, count):
    for message in deliveries(on, *range(1, count + 1)):
        acks.delivered(message)


def flushed(acks, messages):
    for message in messages:
        acks.add(message)
    acks.flush()
    return [message._state for message in messages]


def settled_by(written, delivered):
    """Deliveries that RabbitMQ takes for acked: each ack settles its own, or all up to it."""
    settled = set()
    for tag, multiple in written:
        settled |= {each for each in delivered if each <= tag and each not in settled} if multiple else {tag}
    return settled


def test_a_run_of_deliveries_takes_one_ack_and_those_beyond_a_gap_one_each():
    on, acks = channel(), Acks(())
    receiving(acks, on, 7)
    states = flushed(acks, deliveries(on, 2, 1, 3, 5, 7))

    assert on.written == [(3, True), (5, False), (7, False)]
    assert set(states) == {"ACK"}


def test_a_gap_that_closes_is_not_acked_again():
    on, acks = channel(), Acks(())
    receiving(acks, on, 6)
    flushed(acks, deliveries(on, 1, 3, 4))
    flushed(acks, deliveries(on, 2))
    flushed(acks, deliveries(on, 5, 6))

    assert on.written == [(1, False), (3, False), (4, False), (2, False), (6, True)]


def test_what_was_rejected_leaves_no_gap():
    on, acks = channel(), Acks(())
    receiving(acks, on, 3)
    (rejected,) = deliveries(on, 1)
    acks.settled(rejected)
    flushed(acks, deliveries(on, 2, 3))

    assert on.written == [(3, True)]


def test_acks_of_a_lost_connection_are_dropped_and_the_next_ones_begin_anew():
    old, new, acks = channel(), channel(), Acks(())
    receiving(acks, old, 4)
    for message in deliveries(old, 1, 2):
        acks.add(message)
    old.connection = None
    acks.flush()
    acks.add(*deliveries(old, 3))
    receiving(acks, new, 5)
    first, second, late = *deliveries(new, 1, 2), *deliveries(old, 4)
    flushed(acks, [first, late, second])
    flushed(acks, deliveries(new, 3, 4))

    assert (old.written, new.written) == ([], [(2, True), (4, True)])


def test_a_late_end_on_a_lost_channel_that_still_looks_open_acks_nothing_that_is_in_hand():
    old, new, acks = channel(), channel(), Acks(())
    receiving(acks, old, 3)
    receiving(acks, new, 3)
    flushed(acks, deliveries(old, 2))
    flushed(acks, deliveries(new, 3))
    (late,) = deliveries(old, 3)
    acks.settled(late)
    flushed(acks, deliveries(new, 2))

    assert (old.written, new.written) == ([], [(3, False), (2, False)])


def test_whatever_the_order_every_delivery_is_settled_once_and_none_that_is_in_hand():
    for seed in range(200):
        choice, on, acks = random.Random(seed), channel(), Acks(())
        delivered, done = list(range(1, 31)), set()
        receiving(acks, on, 30)
        while len(done) < 25:
            batch = choice.sample(
                [tag for tag in delivered if tag not in done], choice.randint(1, min(5, 30 - len(done)))
            )
            before = settled_by(on.written, delivered)
            assert before == done
            flushed(acks, deliveries(on, *batch))
            done.update(batch)

        assert settled_by(on.written, delivered) == done
        assert all(tag in done for tag, _ in on.written)
