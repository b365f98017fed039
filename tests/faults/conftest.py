"""Fixtures of the fault suite."""

import pytest

from support.worker import open_bench


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
