"""Unit tests touch no network; a Unix-domain socket (e.g. an event loop's own) is allowed."""

import hypothesis
import pytest
import pytest_socket

# What is slow on a busy machine is no failure.
hypothesis.settings.register_profile("unit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _no_network():
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()
