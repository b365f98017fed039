"""Fixtures of the integration suite."""

import contextlib

import pytest

from support.case import Case


@pytest.fixture
def case(settings):
    """A task that nobody has heard of yet."""
    with contextlib.closing(Case(settings)) as made:
        yield made
