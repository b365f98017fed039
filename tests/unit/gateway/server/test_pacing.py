"""What may wait begins one by one: a greenlet that exchanges bytes passes a crowd of those."""

import functools

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

from dispatch.gateway.server import pacing
from dispatch.gateway.server.worker import _one_a_pass

CROWD, EXCHANGES = 200, 8


def test_a_request_passes_a_crowd_of_those_that_may_wait(monkeypatch):
    monkeypatch.setattr(pacing, "_pass", functools.partial(_one_a_pass, BoundedSemaphore()))
    begun = []

    def paced(number):
        pacing.wait()
        begun.append(number)

    def echo(peer):
        while data := peer.recv(1):
            peer.sendall(data)

    here, there = socket.socketpair()
    crowd = [gevent.spawn(paced, number) for number in range(CROWD)]
    answering = gevent.spawn(echo, there)
    for _ in range(EXCHANGES):
        here.sendall(b"x")
        assert here.recv(1) == b"x"
    passed = len(begun)
    gevent.joinall(crowd, raise_error=True)
    here.close()
    answering.join()
    there.close()

    assert passed < 8 * EXCHANGES  # a few passes of the loop for each exchange
    assert sorted(begun) == list(range(CROWD))


def test_without_an_event_loop_there_is_no_wait():
    assert pacing.wait() is None
