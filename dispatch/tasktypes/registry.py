"""What a task type is, and how a file in ``tasks/`` registers one.

::

    class CleanOrder(Payload):
        robot: str

    @task("robot.clean", payload=CleanOrder, time_limit=300)
    def clean(order: CleanOrder, ctx: Context) -> dict[str, Any]: ...

Registering puts the type into the API, OpenAPI, ``/v1/task-types``, the worker and Flower.
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

#: Ends in a routing key and a URL: dotted lower-case words.
_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")

#: Seconds: the default hard limit of one attempt; a handler over it is killed and counted as failed.
DEFAULT_TIME_LIMIT = 300.0


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


class Payload(pydantic.BaseModel):
    """Base of payload models: strict, frozen, camelCase in JSON, unknown fields refused."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=_camel, validate_by_name=True, validate_by_alias=True
    )


#: A payload field that nobody but the handler may read: ``order.token.get_secret_value()``. Its value is taken out of
#: logs, errors, progress and events; it travels in the message and in the record, which sends it again.
Secret = Annotated[
    pydantic.SecretStr,
    pydantic.PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str, when_used="json"),
]


#: What pydantic would send as asterisks.
_MASKED = (pydantic.SecretStr, pydantic.SecretBytes)


def masked_fields(model: type[pydantic.BaseModel]) -> list[str]:
    """The fields, of the model and of those within it, whose values pydantic masks: a worker would get asterisks.

    Args:
        model: a payload model.

    Returns:
        ``Model.field``, for each that is a `pydantic.SecretStr` or `pydantic.SecretBytes` and not `Secret`.
    """
    found: list[str] = []
    seen: set[type] = set()

    def look(annotation: Any, place: str, *, told: bool = False) -> None:
        if get_origin(annotation) is Annotated:
            inner, *notes = get_args(annotation)
            look(inner, place, told=told or any(isinstance(note, pydantic.PlainSerializer) for note in notes))
        elif isinstance(annotation, type) and issubclass(annotation, _MASKED):
            found.extend([] if told else [place])
        elif isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            walk(annotation)
        else:
            for each in get_args(annotation):
                look(each, place)

    def walk(each: type[pydantic.BaseModel]) -> None:
        if each in seen:
            return
        seen.add(each)
        for name, field in each.model_fields.items():
            told = any(isinstance(note, pydantic.PlainSerializer) for note in field.metadata)
            look(field.annotation, f"{each.__name__}.{name}", told=told)

    walk(model)
    return found


def secrets_of(model: type[Payload], payload: Any) -> tuple[str, ...]:
    """The values of a payload's secret fields.

    Args:
        model: what the payload should be; fields marked ``writeOnly`` in its JSON Schema are secret.
        payload: as it came, valid or not.
    """
    return tuple(dict.fromkeys(text for _, value in _secrets_in(model, payload) for text in _texts(value)))


def veiled(model: type[Payload], payload: Any, veil: str) -> Any:
    """A copy of a payload with another text in the place of each secret, however short.

    Args:
        model: what the payload should be.
        payload: JSON-like, valid or not.
        veil: what is shown instead.
    """
    shown = copy.deepcopy(payload)
    # The deepest first: a secret may be within what is a secret as a whole by another branch of the schema.
    for *way, last in sorted((way for way, _ in _secrets_in(model, payload)), key=len, reverse=True):
        functools.reduce(operator.getitem, way, shown)[last] = veil
    return shown


def _secrets_in(model: type[Payload], payload: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where in a payload its secrets are, and what they are."""
    return (found for schema in _schemas(model) for found in _secrets(schema, payload, schema, ()))


@functools.cache
def _schemas(model: type[Payload]) -> tuple[dict[str, Any], ...]:
    """With the names in JSON and with those in Python, for both are taken; none when nothing is secret."""
    both = tuple(model.model_json_schema(by_alias=by_alias) for by_alias in (True, False))
    return both if "'writeOnly': True" in str(both) else ()


def _secrets(
    schema: Any, value: Any, root: Mapping[str, Any], way: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(schema, Mapping):
        return
    if schema.get("writeOnly"):
        if value is not None:
            yield way, value
        return
    if "$ref" in schema:
        yield from _secrets(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root, way)
    for branch in (each for word in ("anyOf", "oneOf", "allOf") for each in schema.get(word, ())):
        yield from _secrets(branch, value, root, way)
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        for name, each in value.items():
            yield from _secrets(known.get(name, schema.get("additionalProperties")), each, root, (*way, name))
    elif isinstance(value, list):
        first = schema.get("prefixItems", ())
        for number, each in enumerate(value):
            yield from _secrets(
                first[number] if number < len(first) else schema.get("items"), each, root, (*way, number)
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


class Log(Protocol):
    """The part of a structlog logger that handlers use."""

    def info(self, event: str, **fields: Any) -> Any:
        """Write a line of level info."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Write a line of level warning."""


class Context(Protocol):
    """What a handler is given beside its payload."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def idempotency_key(self) -> str:
        """Hand this to the outside: it survives retries and redrives."""

    @property
    def attempt(self) -> int:
        """The attempt that runs, 1-based."""

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
        """Record progress (0-100) and a word about it; may be dropped when Redis is away."""

    def cancelled(self) -> bool:
        """Whether somebody asked for the task to stop; poll it in long handlers."""


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
