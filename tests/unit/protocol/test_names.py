"""Routing keys of copies: whatever key a message came with, its copy reaches the work queue."""

import re

from dispatch.broker.definitions import ROUTED
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, next_copy, parked_copy, redriven_copy, resent_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record, State
from dispatch.protocol.retry import Failure, FailureKind, Retry, parse_ladder
from support.cases import each

OWN = "robot.task.dispatch.robot.clean"


@each(
    ("own", "task_type", "key"),
    [
        (OWN, "echo", OWN),
        ("robot.task.dispatch", "echo", "robot.task.dispatch"),
        ("", "echo", "robot.task.dispatch.echo"),
        ("robot.task.other", "echo", "robot.task.dispatch.echo"),
        ("robot.task.q", "echo", "robot.task.dispatch.echo"),
        ("celery.pidbox", "", "robot.task.dispatch"),
        ("robot.task.dispatcher", "echo", "robot.task.dispatch.echo"),
        ("robot.task.dispatch.", "echo", "robot.task.dispatch.echo"),
        ("robot.task.dispatch.a\nb", "echo", "robot.task.dispatch.echo"),
        ("robot.task.other", "no such\ntype", "robot.task.dispatch"),
        ("robot.task.other", "x" * 250, "robot.task.dispatch"),
        (f"robot.task.dispatch.{'x' * 250}", "echo", "robot.task.dispatch.echo"),
    ],
)
def test_the_key_is_the_messages_own_or_its_types(own, task_type, key):
    assert names.routed_key(own, task_type) == key
    assert re.search(ROUTED, key)


def test_every_copy_that_comes_to_the_work_queue_has_such_a_key_and_a_dead_letter_keeps_its_own():
    message = Message(b"", {"id": "t1", "task": "echo"}, routing_key="celery.pidbox")
    failure = Failure(FailureKind.RETRYABLE, "broken", "it broke")
    retry = Retry(parse_ladder("1m=1").rungs[0])
    record = Record(**_RECORD, message=message)
    copies = [
        next_copy(message, failure, retry, 0),
        parked_copy(message),
        redriven_copy(message),
        resent_copy(record),
    ]

    assert [copy.routing_key for copy in copies] == ["robot.task.dispatch.echo"] * 4
    assert dead_copy(message, Reason.MALFORMED, "no").routing_key == "celery.pidbox"


_RECORD = {
    "task_id": "t1", "type": "echo", "principal": "ada", "state": State.QUEUED, "cycle": 0, "seq": 0, "attempt": 0,
    "max_attempts": 4, "revision": 1, "created_at": 0, "updated_at": 0,
}  # fmt: skip
