"""What commands share: the app they run for, tables, JSON, and errors as one clear line."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec

import click

from dispatch.broker.model import BrokerMap
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError
from dispatch.tasktypes.registry import TaskType

P = ParamSpec("P")

as_json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


class Environment(NamedTuple):
    """What `dispatch.broker.celery_client` has attached to the Celery app."""

    settings: Settings
    types: Mapping[str, TaskType]
    wanted: BrokerMap  #: the broker map


def environment() -> Environment:
    """The environment of the command that runs.

    Raises:
        click.UsageError: it was started without ``-A celery_app``.
    """
    app: Any = getattr(click.get_current_context().find_root().obj, "app", None)
    if not hasattr(app, "dispatch_settings"):
        raise click.UsageError("run it as: celery -A celery_app …")
    return Environment(app.dispatch_settings, app.dispatch_types, app.dispatch_map)


def reported(
    name: str, *, code: Callable[[Exception], int] = lambda _: 2
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Report an expected error of a command as one clear line.

    Args:
        name: of the command, in front of the line.
        code: the exit code of an error; 2 by default.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            except (DispatchError, OSError) as exc:
                click.echo(f"{name}: {exc}", err=True)
                raise SystemExit(code(exc)) from exc

        return run

    return decorate


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """Rows below their heads, columns aligned.

    Args:
        heads: the columns' names.
        rows: a cell for each column.
        right: the columns that are aligned to the right: numbers.
    """
    lines = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]

    def cell(head: str, text: str, width: int) -> str:
        return text.rjust(width) if head in right else text.ljust(width)

    return "\n".join("  ".join(map(cell, heads, line, widths)).rstrip() for line in lines)


def echo_json(value: Any) -> None:
    """Print JSON for people and programs."""
    click.echo(json.dumps(value, indent=2))
