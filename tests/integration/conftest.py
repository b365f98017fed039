"""Fixtures of the integration suite."""

import contextlib

import pytest

from support.case import Case


@pytest.fixture
def case(settings):
    """A task without a record yet."""
    with contextlib.closing(Case(settings)) as made:
        yield made
