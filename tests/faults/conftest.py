"""Fixtures of the fault suite."""

import pytest
from pydantic import SecretStr

from support import redises
from support.worker import open_bench


@pytest.fixture(scope="module")
def server():
    """A Redis that a module's tests may mistreat."""
    with redises.single() as made:
        yield made


@pytest.fixture
def own(settings, server):
    """Settings with that Redis."""
    return settings.model_copy(update={"redis_url": SecretStr(server.url)})


@pytest.fixture
def bench(settings):
    """TaskStore, publisher and submitter in the test's own vhost."""
    with open_bench(settings) as made:
        yield made


@pytest.fixture
def patient(settings):
    """A bench whose hold queue keeps copies for longer than a test takes: only what is called comes out."""
    with open_bench(settings.model_copy(update={"hold_ttl": 600.0})) as made:
        yield made


@pytest.fixture
def log(tmp_path):
    """What the runs of `support.limited` write into."""
    return tmp_path / "runs.txt"
