"""What a task type is, and how a file in ``tasks/`` registers one.

::

    class CleanOrder(Payload):
        robot: str

    @task("robot.clean", payload=CleanOrder, time_limit=300)
    def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]: ...

Registering puts the type into the API, OpenAPI, ``/v1/task-types``, the worker and Flower.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

from dispatch.errors import ConfigurationError
from dispatch.tasktypes.context import Context
from dispatch.tasktypes.payload import Payload, masked_fields

#: Ends in a routing key and a URL: dotted lower-case words.
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")

#: Seconds: the default hard limit of one attempt; a handler over it is killed and counted as failed.
DEFAULT_TIME_LIMIT = 300.0


P = TypeVar("P", bound=Payload)
Handler = Callable[[P, Context], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskType:
    """A registered task type."""

    name: str  #: on the wire, in routing keys and in the API
    payload: type[Payload]  #: what a client must send
    handler: Handler[Any]  #: what a worker runs
    ladder: tuple[str, ...] | None  #: names of the rungs it climbs; None for all of them
    time_limit: float  #: seconds; the hard limit of one attempt
    summary: str  #: first line of the handler's docstring


class Registry(Mapping[str, TaskType]):
    """The task types of this process, by name."""

    def __init__(self) -> None:
        self._types: dict[str, TaskType] = {}

    def add(self, task_type: TaskType) -> None:
        """Register a type.

        Raises:
            ConfigurationError: the name is not usable or taken by another handler, or a secret would be masked.
        """
        if not _NAME.fullmatch(task_type.name):
            msg = f"task name {task_type.name!r} must be dotted lower-case words, as in 'robot.clean'"
            raise ConfigurationError(msg)
        if masked := masked_fields(task_type.payload):
            msg = f"task {task_type.name}: declare {', '.join(masked)} as dispatch.tasktypes.Secret: pydantic would send asterisks"
            raise ConfigurationError(msg)
        taken = self._types.get(task_type.name)
        if taken is not None and taken.handler.__qualname__ != task_type.handler.__qualname__:
            msg = f"task name {task_type.name!r} is taken by {taken.handler.__module__}.{taken.handler.__qualname__}"
            raise ConfigurationError(msg)
        self._types[task_type.name] = task_type

    def __getitem__(self, name: str) -> TaskType:
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._types))

    def __len__(self) -> int:
        return len(self._types)


#: Filled by importing the modules of ``tasks/``.
registry = Registry()


def task(
    name: str, *, payload: type[P], ladder: Sequence[str] | None = None, time_limit: float = DEFAULT_TIME_LIMIT
) -> Callable[[Handler[P]], Handler[P]]:
    """Register a handler as a task type.

    Args:
        name: dotted lower-case words; the name on the wire, so never change it while messages are queued.
        payload: the model of what clients send.
        ladder: names of the declared rungs this type climbs, in order; all of them by default.
        time_limit: seconds an attempt may take before it is killed and counted as failed.

    Returns:
        A decorator that returns the handler unchanged, so that tests can call it.

    Raises:
        ConfigurationError: the name is not usable or taken, or a secret field would be masked.
    """

    def register(handler: Handler[P]) -> Handler[P]:
        summary = (inspect.getdoc(handler) or name).splitlines()[0]
        rungs = None if ladder is None else tuple(ladder)
        registry.add(TaskType(name, payload, handler, rungs, time_limit, summary))
        return handler

    return register


def load(package: ModuleType) -> Registry:
    """Import every module of a package so that its task types register.

    Args:
        package: normally ``tasks``.

    Returns:
        The registry.
    """
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return registry
