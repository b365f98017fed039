"""Task types, and their registration by the modules in ``tasks/``.

::

    class CleanOrder(Payload):
        robot: str

    @task("robot.clean", payload=CleanOrder, time_limit=300)
    def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]: ...

Registration adds the type to the API, OpenAPI, ``/v1/task-types``, the worker and Flower.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import pydantic

from dispatch.errors import ConfigurationError
from dispatch.protocol import concurrency
from dispatch.protocol.concurrency import TypeLimits
from dispatch.protocol.delays import MAX_LEVELS, longest
from dispatch.protocol.rates import RateLimit, parse_rate
from dispatch.tasktypes.context import Context
from dispatch.tasktypes.payload import Payload, masked_fields
from dispatch.tasktypes.validating import validated
from dispatch.tasktypes.waiting import Wait

#: Part of a routing key and of a URL: dotted lower-case words.
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")

#: Seconds: default hard limit of an attempt; a handler over it is killed and the attempt counts as failed.
DEFAULT_TIME_LIMIT = 300.0

#: Seconds of a deadline at most: as far as the delay levels reach.
MAX_DEADLINE = longest(MAX_LEVELS)


P = TypeVar("P", bound=Payload)
Handler = Callable[[P, Context], Mapping[str, Any] | Wait | None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskType:
    """A registered task type."""

    name: str  #: on the wire, in routing keys and in the API
    payload: type[Payload]  #: model of the payload
    handler: Handler[Any]  #: run by a worker
    ladder: tuple[str, ...] | None  #: names of its rungs; None for all
    time_limit: float  #: seconds: hard limit of an attempt
    summary: str  #: first line of the handler's docstring
    deadline: int | None = None  #: seconds, see `task`; None: no deadline
    state: type[pydantic.BaseModel] | None = None  #: model of what its waits keep; None for nothing
    internal: bool = False  #: part of the system: no client and no handler can submit it
    undoes: bool = False  #: whether its handler undoes what a cancelled task has begun, see `task`
    concurrency_key: Callable[[Any], object] | None = None  #: makes a task's key of its payload
    limits: TypeLimits | None = None  #: None: as many at once as there are places

    def key_of(self, payload: Mapping[str, Any]) -> str:
        """The name of the concurrency key that the type makes for a task; empty without one.

        Args:
            payload: JSON-ready.
        """
        value = None if self.concurrency_key is None else self.concurrency_key(validated(self.payload, payload))
        return "" if value is None else concurrency.name_of(value)

    def new_key_of(self, payload: Mapping[str, Any]) -> str | None:
        """The same for a payload in place of another; None where the type makes no keys, and a client's own stays."""
        return None if self.concurrency_key is None else self.key_of(payload)


class Registry(Mapping[str, TaskType]):
    """The task types of this process, by name."""

    def __init__(self) -> None:
        self._types: dict[str, TaskType] = {}

    def add(self, task_type: TaskType) -> None:
        """Register a type.

        Raises:
            ConfigurationError: the name is invalid or taken by another handler, or a secret would be masked.
        """
        if not _NAME.fullmatch(task_type.name):
            msg = f"task name {task_type.name!r} must be dotted lower-case words, as in 'robot.clean'"
            raise ConfigurationError(msg)
        masked = masked_fields(task_type.payload) + (masked_fields(task_type.state) if task_type.state else [])
        if masked:
            msg = f"task {task_type.name}: declare {', '.join(masked)} as dispatch.tasktypes.Secret: pydantic would send asterisks"
            raise ConfigurationError(msg)
        if task_type.deadline is not None and not 1 <= task_type.deadline <= MAX_DEADLINE:
            raise ConfigurationError(f"task {task_type.name}: a deadline is 1 to {MAX_DEADLINE} seconds")
        _check_limits(task_type)
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


def _limits(name: str, limit: int, max_running: int | None, rate: str | None) -> TypeLimits | None:
    if (limit, max_running, rate) == (1, None, None):
        return None
    try:
        return TypeLimits(limit, max_running, None if rate is None else parse_rate(rate))
    except ValueError as exc:
        raise ConfigurationError(f"task {name}: {exc}") from exc


def _check_limits(task_type: TaskType) -> None:
    limits = task_type.limits
    for name, number in (("limit", limits.limit), ("max_running", limits.max_running)) if limits else ():
        if number is not None and not 1 <= number <= concurrency.MAX_LIMIT:
            raise ConfigurationError(f"task {task_type.name}: {name} is 1 to {concurrency.MAX_LIMIT}")


#: Filled by importing the modules of ``tasks/``.
registry = Registry()


def task(
    name: str,
    *,
    payload: type[P],
    ladder: Sequence[str] | None = None,
    time_limit: float = DEFAULT_TIME_LIMIT,
    deadline: int | None = None,
    internal: bool = False,
    state: type[pydantic.BaseModel] | None = None,
    undoes: bool = False,
    concurrency_key: Callable[[P], object] | None = None,
    limit: int = 1,
    max_running: int | None = None,
    rate: str | None = None,
) -> Callable[[Handler[P]], Handler[P]]:
    """Register a handler as a task type.

    Args:
        name: dotted lower-case words; the name on the wire, so never change it while messages are queued.
        payload: model of the payload.
        ladder: names of the declared rungs of this type, in order; all by default.
        time_limit: seconds after which an attempt is killed and counts as failed.
        deadline: seconds within which the last attempt must begin, counted as `options.deadlineSeconds`, which replaces it; none by default.
        internal: only the system itself submits it.
        state: model of what a `Wait` of this type keeps for the next step; without one it keeps nothing.
        undoes: of a cancelled task that has begun, the handler runs once more, also where no attempt has got as far as a `Wait`. It must ask
            ``ctx.cancelled()`` before it begins anything.
        concurrency_key: makes a task's key of its payload, as ``lambda order: order.robot``: of the tasks with one key `limit` run at
            once, of whatever type, the others are held, first come first served. None for no key.
        limit: tasks with one concurrency key at once.
        max_running: tasks of the type at once, on all workers together; by default as many as there are places.
        rate: runs of the type that begin in any second, minute or hour, on all workers together, as ``10/s``, ``600/m`` or ``1000/h``: each
            first run, each retry and each redrive, and no step after a `Wait`. Without one any number.

    Returns:
        A decorator that returns the handler unchanged, so that tests can call it.

    Raises:
        ConfigurationError: the name is invalid or taken, a limit or the rate is none, or a secret field would be masked.
    """
    limits = _limits(name, limit, max_running, rate)

    def register(handler: Handler[P]) -> Handler[P]:
        summary = (inspect.getdoc(handler) or name).splitlines()[0]
        rungs = None if ladder is None else tuple(ladder)
        registry.add(
            TaskType(
                name,
                payload,
                handler,
                rungs,
                time_limit,
                summary,
                deadline,
                state,
                undoes=undoes,
                internal=internal,
                concurrency_key=concurrency_key,
                limits=limits,
            )
        )
        return handler

    return register


def undoing(types: Iterable[TaskType]) -> tuple[str, ...]:
    """The names of the types whose handlers undo what a cancelled task has begun."""
    return tuple(each.name for each in types if each.undoes)


def rates_of(types: Mapping[str, TaskType]) -> tuple[RateLimit, ...]:
    """The rates of the types that have one."""
    limits = ((name, each.limits) for name, each in types.items())
    return tuple(RateLimit(name, own.rate) for name, own in limits if own is not None and own.rate is not None)


def load(package: ModuleType) -> Registry:
    """Import every module of a package, which registers its task types.

    Args:
        package: normally ``tasks``.

    Returns:
        The registry.
    """
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return registry
