"""Both clients, on a clock that stands still."""

import pytest

from support import api_clients


@pytest.fixture
def clock(monkeypatch):
    clock = api_clients.StoppedClock()
    clock.rule(monkeypatch)
    return clock


@pytest.fixture(params=api_clients.KINDS)
def client_of(request, clock):
    """Makes a client of a transport."""
    made = []

    def make(transport, **arguments):
        made.append(api_clients.make(request.param, clock=clock, transport=transport, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()
