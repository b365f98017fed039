"""Fixtures of the integration suite."""

import contextlib

import pytest

from support.case import Case

#: Folders whose tests use no RabbitMQ: a vhost takes as long as most of them.
_WITHOUT_BROKER = {"examples", "schedules", "store", "submission", "tasks"}


@pytest.fixture
def vhost(request, servers):
    """A vhost of the test's own; none that is there, where no test looks for one."""
    if request.path.parent.name in _WITHOUT_BROKER:
        return servers.broker_url("not-there")
    return request.getfixturevalue("created_vhost")


@pytest.fixture
def case(settings):
    """A task without a record yet."""
    with contextlib.closing(Case(settings)) as made:
        yield made
