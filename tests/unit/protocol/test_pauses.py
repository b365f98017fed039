import pytest

from dispatch.protocol.copies import held_copy
from dispatch.protocol.message import Message
from dispatch.protocol.pauses import Pause, holding, is_what

MESSAGE = Message(
    b"[]", {"id": "x", "task": "echo", "x-principal": "ada", "x-seq": 4, "x-attempt": 3, "x-death": [{}]},
    routing_key="robot.task.dispatch.echo",
)  # fmt: skip


@pytest.mark.parametrize("what", ["all", "type:echo", "type:robot.clean", "principal:ada-2", "key:acme:robot~207"])
def test_what_can_be_paused(what):
    assert is_what(what)


@pytest.mark.parametrize(
    "what", ["", "ALL", "all ", "type:", "type:Echo", "type:a/b", "principal:a b", "key:", "lane", "all\n"]
)
def test_what_cannot(what):
    assert not is_what(what)


@pytest.mark.parametrize(
    ("paused", "held_by"),
    [
        (set(), None),
        ({"type:other", "principal:bob", "key:k2"}, None),
        ({"type:echo"}, "type:echo"),
        ({"principal:ada"}, "principal:ada"),
        ({"key:k"}, "key:k"),
        ({"key:k", "principal:ada", "type:echo", "all"}, "all"),
        ({"key:k", "principal:ada"}, "principal:ada"),
    ],
)
def test_the_widest_pause_holds_a_task(paused, held_by):
    assert holding(paused, MESSAGE, ["k"]) == held_by


def test_a_pause_survives_its_text():
    pause = Pause("type:echo", 'why "not"', "ada", 5, None)

    assert Pause.parse("type:echo", pause.text()) == pause


@pytest.mark.parametrize(("until", "over"), [(None, False), (1_000, True), (1_001, False)])
def test_a_pause_ends_by_itself(until, over):
    assert Pause("all", "r", "b", 0, until).over(1.0) is over


def test_a_held_copy_is_the_next_one_of_the_same_attempt_for_the_hold_queue():
    copy = held_copy(MESSAGE, 600)

    assert (copy.exchange, copy.queue, copy.routing_key) == ("robot.retry", "robot.hold.q", "robot.task.dispatch.echo")
    assert (copy.message.seq, copy.message.attempt, copy.message.headers["retry-queue"]) == (5, 3, "hold")
    assert "x-death" not in copy.message.headers
