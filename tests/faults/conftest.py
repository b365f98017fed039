"""Fixtures of the fault suite."""

import pytest

from support.worker import bench


@pytest.fixture
def desk(settings):
    """TaskStore, publisher and submitter in the test's own vhost."""
    with bench(settings) as made:
        yield made
