"""The faults that other tests rely on are the faults they get."""

import contextlib
import socket
import socketserver
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


def said(connection, data):
    connection.sendall(data)
    connection.settimeout(5)
    return connection.recv(100)


def test_bytes_pass_both_ways_over_several_connections(proxy):
    with client(proxy) as one, client(proxy) as two:
        assert said(one, b"1") == b"1"
        assert said(two, b"2") == b"2"
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
        assert said(one, b"hello") == b"hello"
        one.settimeout(0.1)
        one.sendall(b"publish")
        with pytest.raises(TimeoutError):
            one.recv(1)

        assert b"publish" in server.seen


def test_cut_breaks_open_connections_also_held_ones(proxy):
    with client(proxy) as one:
        assert said(one, b"x") == b"x"
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
        assert said(one, b"x") == b"x"


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
