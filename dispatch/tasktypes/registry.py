"""Task types, and their registration by the modules in ``tasks/``.

::

    class CleanOrder(Payload):
        robot: str

    @task("robot.clean", payload=CleanOrder, time_limit=300)
    def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]: ...

Registration adds the type to the API, OpenAPI, ``/v1/task-types``, the worker and Flower.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import inspect
import operator
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any, Protocol, TypeVar, get_args, get_origin

import pydantic

from dispatch.config.settings import Settings
from dispatch.errors import ConfigurationError

#: Part of a routing key and of a URL: dotted lower-case words.
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")

#: Seconds: default hard limit of an attempt; a handler over it is killed and the attempt counts as failed.
DEFAULT_TIME_LIMIT = 300.0


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


class Payload(pydantic.BaseModel):
    """Base of payload models: strict, frozen, camelCase in JSON, unknown fields are rejected."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_camel, validate_by_name=True, validate_by_alias=True
    )


#: A payload field for the handler only: ``order.token.get_secret_value()``. Its value is redacted in logs, errors, progress
#: and events; the message contains it, and so does the record, from which the message is published again.
Secret = Annotated[
    pydantic.SecretStr,
    pydantic.PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str, when_used="json"),
]


#: Types that pydantic serialises as asterisks.
_MASKED = (pydantic.SecretStr, pydantic.SecretBytes)


def masked_fields(model: type[pydantic.BaseModel]) -> list[str]:
    """The fields, of the model and of nested models, whose values pydantic masks: a worker would receive asterisks.

    Args:
        model: a payload model.

    Returns:
        ``Model.field``, for each that is a `pydantic.SecretStr` or `pydantic.SecretBytes` and not `Secret`.
    """
    masked: list[str] = []
    visited: set[type] = set()

    def check(annotation: Any, field: str, *, serialised: bool = False) -> None:
        if get_origin(annotation) is Annotated:
            inner, *metadata = get_args(annotation)
            check(inner, field, serialised=serialised or _has_serializer(metadata))
        elif isinstance(annotation, type) and issubclass(annotation, _MASKED):
            masked.extend([] if serialised else [field])
        elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            visit(annotation)
        else:
            for argument in get_args(annotation):
                check(argument, field)

    def visit(nested: type[pydantic.BaseModel]) -> None:
        if nested in visited:
            return
        visited.add(nested)
        for name, info in nested.model_fields.items():
            check(info.annotation, f"{nested.__name__}.{name}", serialised=_has_serializer(info.metadata))

    visit(model)
    return masked


def _has_serializer(metadata: Sequence[Any]) -> bool:
    return any(isinstance(item, pydantic.PlainSerializer) for item in metadata)


def secrets_of(model: type[Payload], payload: Any) -> tuple[str, ...]:
    """The values of a payload's secret fields.

    Args:
        model: the payload's model; fields marked ``writeOnly`` in its JSON Schema are secret.
        payload: JSON-like, valid or not.
    """
    return tuple(dict.fromkeys(text for _, value in _secrets_in(model, payload) for text in _texts(value)))


def veiled(model: type[Payload], payload: Any, replacement: str) -> Any:
    """A copy of a payload with each secret replaced, of any length.

    Args:
        model: the payload's model.
        payload: JSON-like, valid or not.
        replacement: text in place of each secret.
    """
    result = copy.deepcopy(payload)
    # The deepest first: another branch of the schema may declare a whole object secret that contains this secret.
    for *parents, last in sorted((path for path, _ in _secrets_in(model, payload)), key=len, reverse=True):
        functools.reduce(operator.getitem, parents, result)[last] = replacement
    return result


def _secrets_in(model: type[Payload], payload: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The path and the value of each secret in a payload."""
    return (secret for schema in _schemas(model) for secret in _secrets(schema, payload, schema, ()))


@functools.cache
def _schemas(model: type[Payload]) -> tuple[dict[str, Any], ...]:
    """The JSON Schemas with JSON names and with Python names, since both validate; none without secret fields."""
    both = tuple(model.model_json_schema(by_alias=by_alias) for by_alias in (True, False))
    return both if "'writeOnly': True" in str(both) else ()


def _secrets(
    schema: Any, value: Any, root: Mapping[str, Any], path: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(schema, Mapping):
        return
    if schema.get("writeOnly"):
        if value is not None:
            yield path, value
        return
    if "$ref" in schema:
        yield from _secrets(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root, path)
    for branch in (branch for keyword in ("anyOf", "oneOf", "allOf") for branch in schema.get(keyword, ())):
        yield from _secrets(branch, value, root, path)
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        for name, member in value.items():
            yield from _secrets(properties.get(name, schema.get("additionalProperties")), member, root, (*path, name))
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            item_schema = prefix[index] if index < len(prefix) else schema.get("items")
            yield from _secrets(item_schema, item, root, (*path, index))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for child in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(child)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


class Log(Protocol):
    """The part of a structlog logger that handlers use."""

    def info(self, event: str, **fields: Any) -> Any:
        """Log at level info."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Log at level warning."""


class Context(Protocol):
    """The running attempt, passed to the handler with its payload."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def idempotency_key(self) -> str:
        """An Idempotency-Key for outgoing calls: the same through retries and redrives."""

    @property
    def attempt(self) -> int:
        """The number of the current attempt, 1-based."""

    @property
    def trace_id(self) -> str:
        """32 hex digits, the same through every hop."""

    @property
    def traceparent(self) -> str:
        """W3C Trace Context header for outgoing calls."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""

    @property
    def log(self) -> Log:
        """A logger bound to the task."""

    def progress(self, percent: int, message: str = "") -> None:
        """Record progress in percent (0-100) and a message; may be dropped while Redis is unavailable."""

    def cancelled(self) -> bool:
        """Whether cancellation was requested; long handlers must poll it."""


P = TypeVar("P", bound=Payload)
Handler = Callable[[P, Context], Mapping[str, Any] | None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskType:
    """A registered task type."""

    name: str  #: on the wire, in routing keys and in the API
    payload: type[Payload]  #: model of the payload
    handler: Handler[Any]  #: run by a worker
    ladder: tuple[str, ...] | None  #: names of its rungs; None for all
    time_limit: float  #: seconds: hard limit of an attempt
    summary: str  #: first line of the handler's docstring


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
        payload: model of the payload.
        ladder: names of the declared rungs of this type, in order; all by default.
        time_limit: seconds after which an attempt is killed and counts as failed.

    Returns:
        A decorator that returns the handler unchanged, so that tests can call it.

    Raises:
        ConfigurationError: the name is invalid or taken, or a secret field would be masked.
    """

    def register(handler: Handler[P]) -> Handler[P]:
        summary = (inspect.getdoc(handler) or name).splitlines()[0]
        rungs = None if ladder is None else tuple(ladder)
        registry.add(TaskType(name, payload, handler, rungs, time_limit, summary))
        return handler

    return register


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
