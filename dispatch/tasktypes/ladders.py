"""The ladder of each task type."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from dispatch.errors import ConfigurationError
from dispatch.protocol.retry import Ladder
from dispatch.tasktypes.registry import TaskType


@dataclasses.dataclass(frozen=True, slots=True)
class Ladders:
    """Ladders by task type.

    Args:
        whole: the ladder of the settings; of every type without one of its own, and of unknown types.
        own: the ladders of types that climb only some rungs.
    """

    whole: Ladder
    own: Mapping[str, Ladder] = dataclasses.field(default_factory=dict)

    @classmethod
    def of_types(cls, whole: Ladder, types: Iterable[TaskType]) -> Ladders:
        """The ladders of the registered types.

        Raises:
            ConfigurationError: a type names a rung that isn't declared.
        """
        own: dict[str, Ladder] = {}
        for task_type in types:
            if task_type.ladder is not None:
                try:
                    own[task_type.name] = whole.subset(task_type.ladder)
                except ValueError as exc:
                    raise ConfigurationError(f"task type {task_type.name}: {exc} in DISPATCH_LADDER") from exc
        return cls(whole, own)

    def of(self, task_type: str) -> Ladder:
        """The ladder of a type."""
        return self.own.get(task_type, self.whole)
