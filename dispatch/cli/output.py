"""What commands share: the environment, errors as one line, exit codes.

Exit codes: 0 done; 1 not done, or an answer that is no; 2 wrong use or settings, or a server that can't be asked; 130 Ctrl-C;
141 the reader of the output has gone, as in ``… | head``.
"""

from __future__ import annotations

import functools
import json
import os
import pwd
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec

import click

from dispatch.broker.model import BrokerMap
from dispatch.cli import pipes
from dispatch.config import stack_env
from dispatch.config.settings import Settings
from dispatch.errors import DispatchError, StoreUnavailable
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import trouble

P = ParamSpec("P")

#: Without a server in the environment, and without a running stack of `make up`, whose settings would have been used.
_NOT_SAID = (
    "No DISPATCH_… names a server, and no stack runs here: start one (make up, or dispatch up), source the env file of one "
    f"({stack_env.SOURCE}), or set DISPATCH_BROKER_URL, DISPATCH_MANAGEMENT_URL and DISPATCH_REDIS_URL."
)

NOT_DONE = 1  #: exit code: nothing was found, something was kept, the answer is no
UNANSWERED = 2  #: exit code: wrong use or settings, or a server that can't be asked
INTERRUPTED = 130  #: exit code: Ctrl-C, as a shell has it (128 + SIGINT)

as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="For programs: docs/reference/cli.md has the keys."
)


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


def operator(name: str | None = None) -> str:
    """Who runs a command: the OS user, by the password database and not by the environment.

    Args:
        name: who the user claims to be, where several people share an OS user.

    Returns:
        ``cli:<OS user>``, or ``cli:<OS user>/<name>``.
    """
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        user = str(os.getuid())
    return f"cli:{user}/{name}" if name else f"cli:{user}"


def reported(
    name: str, *, code: Callable[[Exception], int] = lambda _: UNANSWERED
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Report an expected error of a command as one clear line, and Ctrl-C by its exit code alone.

    Args:
        name: of the command, in front of the line.
        code: the exit code of an error; 2 by default.
    """

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                with trouble.silenced():
                    command(*args, **kwargs)
            except KeyboardInterrupt:
                if sys.stderr.isatty():
                    click.echo(err=True)  # after the ^C
                raise SystemExit(INTERRUPTED) from None
            except (DispatchError, OSError) as exc:
                if isinstance(exc, BrokenPipeError) and pipes.reader_gone():
                    pipes.leave()
                click.echo(f"{name}: {_explained(exc)}", err=True)
                raise SystemExit(code(exc)) from exc

        return run

    return decorate


def _explained(exc: Exception) -> str:
    """An error as an operator needs it: which server at which address; and where it may be, if the environment names none."""
    why, text = getattr(exc, "trouble", None), str(exc)
    if why is None:
        return text
    if why.where not in text:
        text = str(why) if isinstance(exc, StoreUnavailable) else f"{text} [{why}]"
    return text if stack_env.names_servers(os.environ) else f"{text}\n{_NOT_SAID}"


def confirm(question: str) -> None:
    """Ask a person; returns when the answer is yes, and ends the command otherwise.

    Args:
        question: without ``[y/N]``.

    Raises:
        SystemExit: 1 for any answer but yes, and for the end of the input.
        KeyboardInterrupt: Ctrl-C.
    """
    click.echo(f"{question} [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        click.echo("nothing was done", err=True)
        raise SystemExit(NOT_DONE)


def asks() -> bool:
    """Whether there is a terminal to ask on."""
    return sys.stdin.isatty()


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun: ``1 dead letter``, ``1,234 dead letters``.

    Args:
        number: how many.
        one: the noun for one.
        many: the noun for all other numbers; by default with an s.
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def echo_json(value: Any) -> None:
    """Print JSON for people and programs."""
    click.echo(json.dumps(value, indent=2))


def echo_line(value: Any) -> None:
    """Print JSON as one line of many."""
    click.echo(json.dumps(value))
