"""What RabbitMQ's replies and failed connections mean, where no test has a server that gives them."""

import errno
import socket
from pathlib import Path

import amqp.exceptions

from dispatch.broker import faults
from dispatch.config import network
from dispatch.errors import Trouble
from dispatch.store import faults as store_faults
from support.cases import each

WHERE = "amqps://ada:hush@h:5671/v"  # over TLS no port is asked
LOGS = Path(__file__).parents[3] / "docs/reference/logs.md"


def error(code, text):
    found = amqp.exceptions.error_for_code(code, text, (0, 0), amqp.exceptions.ConnectionError)
    found.reply_code = code
    return found


@each(
    ("exc", "reason", "refuses"),
    [
        (error(403, "ACCESS_REFUSED - Login was refused: user 'guest' - User can only log in via localhost"), "it accepts this user from its own machine only", False),
        (error(403, "ACCESS_REFUSED - write access to exchange 'x' refused for user 'ada'"), "its user lacks a right", False),
        (error(530, "NOT_ALLOWED - access to vhost 'v' refused for user 'ada': connection limit (1) is reached"), "its limit of connections is reached", False),
        (error(530, "NOT_ALLOWED - vhost 'v' is down"), "its vhost is down", False),
        (error(320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"), "it closed the connection: it shuts down, or an operator did", False),
        (error(404, "NOT_FOUND - no exchange 'x' in vhost 'v'"), "an exchange is missing: run `topology apply`", True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "it closed the connection", False),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "there is no route to it", False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "its host name can't be looked up now", False),
        (RuntimeError("hush"), "RuntimeError", False),
        (None, "NoneType", False),
    ],
)  # fmt: skip
def test_an_error_has_a_reason_without_names(exc, reason, refuses):
    trouble = faults.trouble(WHERE, exc)

    assert (trouble.reason, trouble.where, trouble.refuses) == (reason, "ada@h:5671/v", refuses)


def test_a_cause_further_back_is_found():
    outer, inner = RuntimeError("library"), ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    outer.__cause__ = inner
    inner.__context__ = outer  # a ring ends

    assert faults.trouble(WHERE, outer).reason.startswith("connection refused")


@each(
    ("text", "shown"),
    [
        ("amqp://u:p@h/v: no\n  way", "amqp://…@h/v: no way"),
        ("redis://:p%40@h", "redis://…@h"),
        ("plain", "plain"),
    ],
)
def test_words_of_a_library_have_no_password(text, shown):
    assert network.words(OSError(text)) == shown


@each(
    ("url", "shown"),
    [
        ("amqp://u:p@h:1/v;amqp://w@i/v", "u@h:1/v;w@i/v"),
        ("redis://:p@h:1/2?client_name=x", "h:1/2"),
        ("redis+sentinel://u:p@a:1,b:2/s/0?sentinel_password=p", "u@a:1,b:2/s/0"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert network.shown(url) == shown


def test_two_troubles_are_the_same_when_only_the_words_differ():
    assert Trouble("Redis", "a", "h", "x") == Trouble("Redis", "a", "h", "y")
    assert Trouble("Redis", "a", "h") != Trouble("Redis", "b", "h")


def test_each_reason_is_documented():
    reasons = {reason for replies in faults._REPLIES.values() for _, reason in replies if reason}
    reasons |= {*network._BY_ERRNO.values(), faults.FOREIGN, faults.ALARM, store_faults.FOREIGN}
    reasons |= {reason for _, reason in store_faults._BY_TYPE} | set(store_faults._BY_PREFIX.values())
    text = LOGS.read_text()
    missing = sorted(reason for reason in reasons if reason.partition(":")[0] not in text)

    assert missing == []
