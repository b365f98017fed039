"""The publisher: what it decides before it writes, what it learns while it waits, how it keeps its connection up."""

import threading
from concurrent.futures import Future

import pytest

from dispatch.broker import publisher as module
from dispatch.broker.publisher import LONGEST_REFUSED, REFUSED, SILENT, Publisher
from dispatch.errors import InDoubt, Nacked, NotSent
from dispatch.protocol.signatures import MessageKeys
from support.cases import each
from support.unit_fakes import ManualClock, task_message


class FakeConnection:
    """A connection whose state a test sets."""

    def __init__(self, url="", *, opens=True):
        self.url, self.error = url, None
        self.opened, self.closed = threading.Event(), threading.Event()
        self.address = url
        self.blocked = self.takes = self.retired = False
        self.silent_for = self.refused_for = 0.0
        self.future, self.written, self.killed, self.beats = Future(), [], [], 0
        self._opens = opens

    @property
    def usable(self):
        return self.opened.is_set() and not self.closed.is_set() and not self.blocked

    def start(self):
        (self.opened if self._opens else self.closed).set()

    def oldest(self):
        return self.silent_for

    def refused(self):
        return self.refused_for

    def retire(self):
        self.retired = True

    def heartbeat(self):
        self.beats += 1

    def kill(self, reason):
        self.killed.append(reason)
        self.closed.set()

    def publish(self, message, exchange, routing_key, _deadline):
        self.written.append((message, exchange, routing_key))
        return self.future


@pytest.fixture
def publisher(monkeypatch):
    """A publisher whose thread does nothing: the test calls `check`."""
    monkeypatch.setattr(module._Keeper, "start", lambda _self: None)
    return Publisher("amqps://one;amqps://two", timeout=0.05, connect_timeout=0.01)


@pytest.fixture
def connection(publisher):
    publisher.start()
    publisher._connection = FakeConnection()
    publisher._connection.start()
    return publisher._connection


@pytest.fixture
def made(monkeypatch):
    """The connections that a publisher makes; `opens` is what the next ones do."""

    class Made(list):
        opens = True

        def __call__(self, url, **_options):
            self.append(FakeConnection(url, opens=self.opens))
            return self[-1]

    made = Made()
    monkeypatch.setattr(module, "ConfirmingConnection", made)
    return made


def send(publisher):
    return publisher.publish(task_message(), "x", "key")


def test_a_confirmed_message_took_some_seconds(publisher, connection):
    connection.future.set_result(None)

    assert 0 <= send(publisher) < 5
    assert connection.written == [(task_message(), "x", "key")]


def test_the_brokers_refusal_comes_through(publisher, connection):
    connection.future.set_exception(Nacked())
    with pytest.raises(Nacked):
        send(publisher)


def test_a_confirm_that_does_not_come_in_time_is_in_doubt(publisher, connection):
    with pytest.raises(InDoubt, match="did not confirm within"):
        publisher.publish(task_message(), "x", "key", timeout=0.06)

    assert len(connection.written) == 1


def test_without_a_connection_nothing_is_sent(publisher):
    with pytest.raises(NotSent, match="not connected"):
        send(publisher)

    assert not publisher.ready()


@each(
    ("change", "text"),
    [
        (lambda connection: connection.closed.set(), "not connected"),
        (lambda connection: connection.opened.clear(), "not connected"),
        (lambda connection: setattr(connection, "blocked", True), "alarm"),
        (lambda connection: setattr(connection, "silent_for", SILENT + 0.1), "does not confirm"),
    ],
    ids=["closed", "not open yet", "alarm", "silent"],
)
def test_what_makes_a_publish_hopeless_writes_nothing(publisher, change, text):
    publisher.start()
    connection = publisher._connection = FakeConnection()
    connection.start()
    change(connection)
    with pytest.raises(NotSent, match=text):
        send(publisher)

    assert connection.written == []
    assert not publisher.ready()


def test_an_open_connection_is_ready(publisher, connection):
    assert publisher.ready()
    assert connection.written == []


def test_a_publish_waits_for_a_reconnect_that_comes_soon(monkeypatch):
    monkeypatch.setattr(module._Keeper, "start", lambda _self: None)
    publisher = Publisher("amqps://one", timeout=60, connect_timeout=120)
    fresh = FakeConnection()
    fresh.start()
    fresh.future.set_result(None)

    def reconnect():
        with publisher._changed:
            publisher._connection = fresh
            publisher._changed.notify_all()

    thread = threading.Timer(0.01, reconnect)
    thread.start()
    send(publisher)
    thread.join()

    assert len(fresh.written) == 1


def test_the_urls_are_tried_in_turn(publisher, made):
    publisher.start()
    for _ in range(3):
        publisher.check()
        made[-1].closed.set()

    assert [connection.url for connection in made] == ["amqps://one", "amqps://two", "amqps://one"]


def test_connections_that_never_open_are_tried_with_rising_pauses(publisher, made):
    publisher.start()
    pauses = []
    publisher._keeper.pause = pauses.append
    made.opens = False
    for _ in range(7):
        publisher.check()

    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_connection_that_was_open_is_replaced_at_once(publisher, made):
    publisher.start()
    pauses = []
    publisher._keeper.pause = pauses.append
    for opens in (False, False, True, False, False):
        made.opens = opens
        publisher.check()
        made[-1].closed.set()

    assert pauses == pytest.approx([0.1, 0.2, 0.1])


def test_a_silent_broker_loses_its_connection(publisher, connection):
    connection.silent_for = 2 * SILENT + 0.1
    publisher.check()

    assert [type(reason) for reason in connection.killed] == [InDoubt]


def test_an_alarm_is_no_silence(publisher, connection):
    connection.silent_for, connection.blocked = 60, True
    connection.closed.wait = lambda _seconds: False
    publisher.check()

    assert connection.killed == []
    assert "resource alarm (memory or disk)" in publisher.trouble.public

    connection.silent_for, connection.blocked = 0, False
    publisher.check()

    assert publisher.trouble is None


def test_a_connection_that_only_refuses_is_replaced_and_retired(publisher, connection, made):
    connection.refused_for = REFUSED + 0.1
    connection.closed.wait = lambda _seconds: False
    publisher.check()

    assert connection.retired
    assert publisher._connection is made[0]


def test_the_patience_doubles_up_to_the_longest_while_replacing_does_not_help(publisher, connection, made):
    patience = []
    for _ in range(8):
        publisher._connection.refused_for = 1_000
        publisher._watch(publisher._connection)
        patience.append(publisher._patience)

    assert patience == [2, 4, 8, 16, 32, LONGEST_REFUSED, LONGEST_REFUSED, LONGEST_REFUSED]
    assert (len(made), connection.retired) == (8, True)


def test_a_connection_within_the_patience_stays(publisher, connection, made):
    publisher._patience = 8
    connection.refused_for = 7.9
    publisher._watch(connection)

    assert (made, connection.retired) == ([], False)


def test_the_patience_is_short_again_when_everything_is_taken(publisher, connection):
    publisher._patience = LONGEST_REFUSED
    connection.takes = True
    publisher._watch(connection)

    assert publisher._patience == REFUSED


def test_the_heart_beats_once_a_second(publisher, connection, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    connection.closed.wait = clock.sleep
    for _ in range(25):
        publisher.check()

    assert connection.beats == 3


def test_a_handshake_that_does_not_end_is_given_up(publisher, made, monkeypatch):
    publisher.start()
    monkeypatch.setattr(FakeConnection, "start", lambda _self: None)
    publisher.check()

    assert [str(reason) for reason in made[0].killed] == ["RabbitMQ did not finish the handshake"]


def test_closing_ends_the_connection_and_connects_no_more(publisher, connection, made):
    publisher.close()
    publisher.check()

    assert [type(reason) for reason in connection.killed] == [NotSent]
    assert made == []


def test_a_forked_process_writes_to_no_connection_of_its_parent(publisher, connection, monkeypatch):
    monkeypatch.setattr(module.os, "getpid", lambda: -1)
    with pytest.raises(NotSent):
        send(publisher)
    publisher.close()

    assert (connection.written, connection.killed) == ([], [])


def test_what_is_published_is_signed_and_what_came_from_others_is_not(monkeypatch):
    monkeypatch.setattr(module._Keeper, "start", lambda _self: None)
    keys, message = MessageKeys.parse(f"one:{'k' * 32}"), task_message()
    publisher = Publisher("amqps://", timeout=0.05, keys=keys)
    publisher.start()
    publisher._connection = connection = FakeConnection()
    connection.start()
    connection.future.set_result(None)
    publisher.publish(message, "e", "k")
    publisher.publish_as_it_came(message, "e", "k")

    assert connection.written == [(keys.sign(message), "e", "k"), (message, "e", "k")]
