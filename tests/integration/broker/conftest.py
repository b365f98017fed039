"""Connections to the test's own vhost."""

import contextlib

import kombu
import pytest

from dispatch.broker.publisher import Publisher


@pytest.fixture
def publisher(settings):
    """As the gateway's user."""
    with contextlib.closing(Publisher(settings.address("gateway"), connect_timeout=5.0, timeout=10.0)) as made:
        yield made


@pytest.fixture
def channel(settings):
    """As the admin."""
    with kombu.Connection(settings.broker("admin")) as connection, connection.channel() as made:
        yield made
