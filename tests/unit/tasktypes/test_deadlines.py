"""The deadline that a task type gives its tasks."""

import pytest

from dispatch.errors import ConfigurationError
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import MAX_DEADLINE, Registry, TaskType
from support.cases import each


def kind(deadline):
    return TaskType("mow", Payload, lambda *_: {}, None, 300.0, "Mow.", deadline)


@each("deadline", [None, 1, MAX_DEADLINE])
def test_a_type_may_have_a_deadline(deadline):
    registry = Registry()
    registry.add(kind(deadline))

    assert registry["mow"].deadline == deadline


@each("deadline", [0, -1, MAX_DEADLINE + 1])
def test_a_deadline_without_a_meaning_is_refused(deadline):
    with pytest.raises(ConfigurationError, match="a deadline is 1 to"):
        Registry().add(kind(deadline))
