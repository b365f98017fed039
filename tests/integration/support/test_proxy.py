"""The faults that other tests rely on are the faults they get."""

import contextlib
import socket
import socketserver
import sys
import threading

import pytest

from support.proxy import DOWN, UP, Proxy
from support.waiting import eventually


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with contextlib.suppress(OSError):
            while data := self.request.recv(65_536):
                self.server.seen.append(data)
                self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Echo) as echo:
        echo.seen = []
        thread = threading.Thread(target=echo.serve_forever, args=(0.01,))
        thread.start()
        yield echo
        echo.shutdown()
        thread.join()


@pytest.fixture
def proxy(server):
    with Proxy(*server.server_address, f"amqp://a:b@127.0.0.1:{server.server_address[1]}/v") as proxy:
        yield proxy


@contextlib.contextmanager
def client(proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), 5) as connection:
        connection.settimeout(0.1)
        yield connection


def exchanged(connection, data):
    connection.sendall(data)
    connection.settimeout(5)
    return connection.recv(100)


def test_bytes_pass_both_ways_over_several_connections(proxy):
    with client(proxy) as one, client(proxy) as two:
        assert exchanged(one, b"1") == b"1"
        assert exchanged(two, b"2") == b"2"
        assert proxy.accepted == 2
    eventually(lambda: proxy.connections == 0, 5)


def test_held_answers_come_after_the_release(proxy, server):
    with client(proxy) as one:
        proxy.hold(DOWN)
        one.sendall(b"x")
        eventually(lambda: server.seen == [b"x"], 5)
        with pytest.raises(TimeoutError):
            one.recv(1)
        proxy.release()
        one.settimeout(5)

        assert one.recv(1) == b"x"


def test_held_requests_do_not_reach_the_server(proxy, server):
    with client(proxy) as one:
        proxy.hold(UP)
        one.sendall(b"x")
        with pytest.raises(TimeoutError):
            one.recv(1)

        assert server.seen == []


def test_a_watcher_can_stop_the_answer_to_what_it_saw(proxy, server):
    proxy.watch = lambda _, data: proxy.hold(DOWN) if data == b"publish" else None
    with client(proxy) as one:
        assert exchanged(one, b"hello") == b"hello"
        one.settimeout(0.1)
        one.sendall(b"publish")
        with pytest.raises(TimeoutError):
            one.recv(1)

        assert b"publish" in server.seen


def test_cut_breaks_open_connections_also_held_ones(proxy):
    with client(proxy) as one:
        assert exchanged(one, b"x") == b"x"
        proxy.hold()
        one.sendall(b"y")
        proxy.cut()
        one.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(1) == b""
    eventually(lambda: proxy.connections == 0, 5)


def test_a_refusing_proxy_comes_back_on_the_same_port(proxy):
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    proxy.admit()
    with client(proxy) as one:
        assert exchanged(one, b"x") == b"x"


def test_the_url_leads_through_the_proxy(proxy):
    assert proxy.url == f"amqp://a:b@127.0.0.1:{proxy.port}/v"


def test_a_proxy_whose_server_is_away_resets():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy:
        with contextlib.suppress(ConnectionResetError), client(proxy) as one:
            one.settimeout(5)
            assert one.recv(1) == b""
        assert proxy.connections == 0


# --- races -----------------------------------------------------------------------------------------
@pytest.fixture
def road(proxy, monkeypatch):
    """The proxy's way to its server: ``taken`` once a connection is on it, which arrives when it is ``open``."""
    taken, opened, connect = threading.Event(), threading.Event(), socket.create_connection

    def slowly(address, *rest):
        if address == proxy._target:
            taken.set()
            opened.wait(10)
        return connect(address, *rest)

    monkeypatch.setattr(socket, "create_connection", slowly)
    yield taken, opened
    opened.set()


def broken(connection):
    """Whether the connection breaks soon."""
    connection.settimeout(5)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_connection_whose_way_to_the_server_is_being_opened_is_cut_too(proxy, road):
    taken, opened = road
    with client(proxy) as one:
        assert taken.wait(5)
        proxy.cut()
        opened.set()

        assert broken(one)
    eventually(lambda: proxy.connections == 0, 5)


def test_connections_that_wait_to_be_accepted_are_cut_too(proxy, road):
    taken, opened = road
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(client(proxy)) for _ in range(5)]
        assert taken.wait(5)
        proxy.cut()
        opened.set()

        assert [broken(each) for each in waiting] == [True] * 5
    eventually(lambda: proxy.connections == 0, 5)


def test_a_close_ends_a_connection_whose_way_to_the_server_is_being_opened(proxy, road):
    taken, opened = road
    before = set(threading.enumerate())
    with client(proxy) as one:
        assert taken.wait(5)
        closing = threading.Thread(target=proxy.close)
        closing.start()
        eventually(lambda: proxy._closed, 5)
        opened.set()
        closing.join(10)

        assert broken(one)
    eventually(lambda: not set(threading.enumerate()) - before, 5, "no thread is left, the server's own included")
    assert not closing.is_alive()


def test_a_proxy_that_refuses_lets_no_connection_in_that_was_being_accepted(proxy, road, server):
    taken, opened = road
    with client(proxy) as one:
        assert taken.wait(5)
        proxy.refuse()
        proxy.cut()
        opened.set()

        assert broken(one)
    eventually(lambda: proxy.connections == 0, 5)
    assert server.seen == []


def test_a_closed_proxy_admits_nothing(proxy):
    proxy.close()
    proxy.admit()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port), 5)


def test_many_may_admit_at_once(proxy):
    proxy.refuse()
    failures = []
    start = threading.Barrier(8)

    def admit():
        start.wait()
        try:
            proxy.admit()
        except OSError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=admit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with client(proxy) as one:
        assert exchanged(one, b"x") == b"x"
    assert failures == []


def test_what_is_late_is_held_by_a_hold_that_comes_meanwhile(proxy, server):
    with client(proxy) as one:
        proxy.delay(0.6, DOWN)
        one.sendall(b"x")
        eventually(lambda: server.seen == [b"x"], 5)
        proxy.hold(DOWN)
        one.settimeout(0.8)
        with pytest.raises(TimeoutError):
            one.recv(1)


def test_a_cut_does_not_wait_for_what_is_late(proxy):
    proxy.delay(60)
    with client(proxy) as one:
        one.sendall(b"x")
        eventually(lambda: proxy.connections == 1, 5)
        proxy.cut()

        assert broken(one)
    eventually(lambda: proxy.connections == 0, 5)


def test_no_thread_outlives_a_proxy_that_is_cut_refused_and_admitted_while_clients_come(server):
    before, over, interval = set(threading.enumerate()), threading.Event(), sys.getswitchinterval()

    def come():
        while not over.is_set():
            with contextlib.suppress(OSError), client(proxy) as one:
                one.sendall(b"x")
                one.recv(1)

    sys.setswitchinterval(1e-5)
    try:
        with Proxy(*server.server_address) as proxy:
            clients = [threading.Thread(target=come) for _ in range(4)]
            for thread in clients:
                thread.start()
            for _ in range(50):
                proxy.cut()
                proxy.refuse()
                proxy.cut()
                eventually(lambda: proxy.connections == 0, 5, "what was open when it refused is cut")
                proxy.admit()
            proxy.close()
            over.set()
            for thread in clients:
                thread.join(10)
    finally:
        sys.setswitchinterval(interval)
        over.set()

    left = [each.name for each in set(threading.enumerate()) - before if each.name.startswith("proxy-")]
    assert left == []
