"""Messages that are kept packed are the same afterwards, and take a tenth of the memory."""

import datetime as dt

from dispatch.store.packed import TASK, PackedMessages
from support.cases import each
from support.unit_fakes import task_message


@each(
    "headers",
    [
        {},
        {"x-retry-queue": "1m", "nested": {"a": [1, None, True, 2.5]}, "bytes": b"\xff", "text": "täsk \ud800"},
        {"timestamp": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)},  # as AMQP has it, and nothing of ours
    ],
)
def test_what_is_packed_comes_back_as_it_was(headers):
    entries = [(task_message(id=f"t-{number}", **headers), ("owner", number, "{}")) for number in range(3)]

    assert PackedMessages(entries).entries() == entries


def test_it_takes_a_tenth_of_what_the_objects_take():
    plain = PackedMessages([(task_message(id=f"t-{number}"), ()) for number in range(20)])
    odd = PackedMessages([(task_message(at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), ())])

    assert plain.size < 20 * TASK / 10
    assert odd.size > TASK
