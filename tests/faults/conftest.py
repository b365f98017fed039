"""Fixtures of the fault suite."""

import pytest

from support.worker import open_bench


@pytest.fixture
def bench(settings):
    """TaskStore, publisher and submitter in the test's own vhost."""
    with open_bench(settings) as made:
        yield made
