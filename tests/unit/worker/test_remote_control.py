"""Which messages on the control queue reach a handler of Celery's."""

from celery.worker.control import Panel

from dispatch.worker.remote_control import READ_ONLY, SETTING, allowed, fault, masked, refusal
from support.cases import each

REPLIES = "reply.celery.pidbox"
ADDRESS = {"exchange": REPLIES, "routing_key": "an-oid"}


def test_the_handlers_are_those_that_only_read_and_those_of_the_setting():
    assert set(allowed(Panel.data, ())) == READ_ONLY
    assert set(allowed(Panel.data, ("shutdown",))) == READ_ONLY | {"shutdown"}


def test_no_command_that_changes_something_is_among_them():
    changing = {name for name, meta in Panel.meta.items() if meta.type == "control"}

    assert READ_ONLY & changing == {"enable_events", "heartbeat"}


@each(
    ("body", "ok"),
    [
        ({"method": "ping"}, True),
        ({"method": "ping", "destination": ["w@h"], "arguments": {"a": 1}, "reply_to": ADDRESS, "ticket": "t"}, True),
        ({"method": "ping", "pattern": "w*", "matcher": "glob"}, True),
        ({"method": "ping", "reply_to": None, "arguments": None, "more": object()}, True),
        ([], False),
        ("ping", False),
        ({}, False),
        ({"method": ["ping"]}, False),
        ({"method": "ping", "arguments": [1]}, False),
        ({"method": "ping", "destination": 7}, False),
        ({"method": "ping", "destination": [7]}, False),
        ({"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"}, False),
        ({"method": "ping", "pattern": 7, "matcher": "glob"}, False),
        ({"method": "ping", "pattern": "[!a" * 100, "matcher": "glob"}, False),
        ({"method": "ping", "ticket": {}}, False),
        ({"method": "ping", "reply_to": "somewhere"}, False),
        ({"method": "ping", "reply_to": {**ADDRESS, "exchange": "robot.task.dlx"}}, False),
        ({"method": "ping", "reply_to": {"exchange": REPLIES}}, False),
        ({"method": "ping", "reply_to": {**ADDRESS, "routing_key": "é" * 128}}, False),
    ],
)
def test_what_is_a_control_message(body, ok):
    assert (fault(body, REPLIES) is None) == ok


@each("method", ["shutdown", "revoke", "no.such.command", "x" * 10_000])
def test_a_refusal_names_the_setting_and_is_short(method):
    text = refusal(method)

    assert text.startswith(method[:100])
    assert SETTING in text
    assert len(text) < 400


def test_an_answer_is_without_the_passwords_of_urls():
    answer = {"broker": [("amqp://ada:s3cret@a:5672/v;amqp://ada:s3cret@b/v", 7)], "plain": "a:b@c", "none": None}

    assert masked(answer) == {
        "broker": [["amqp://ada:**@a:5672/v;amqp://ada:**@b/v", 7]],
        "plain": "a:b@c",
        "none": None,
    }
