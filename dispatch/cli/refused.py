"""Commands of Celery's own that would lose or double accepted tasks: each is refused, with what to use instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

#: Why a command is refused, and what to use.
REFUSED = {
    "call": "a task needs a record before its message: submit it with POST /v1/tasks",
    "migrate": "it takes messages from one broker before another has confirmed them: docs/how-to/migrate-a-queue.md",
    "purge": "what waits in the queue has been accepted, and would come back: stop the clients, let the workers finish, and "
    "discard dead letters with `celery -A celery_app dlq discard`",
}


def install() -> None:
    """Refuse them in this process, if it is Celery's command line.

    Celery registers its own commands after those of entry points, so that a command of the same name would be replaced;
    and by the time that the app is imported, click has chosen the command: only its callback can still be another.
    """
    module = sys.modules.get("celery.bin.celery")
    commands = module.celery.commands if module is not None else {}
    for name, why in REFUSED.items():
        if name in commands:
            commands[name].callback = _refusing(name, why)


def _refusing(name: str, why: str) -> Callable[..., None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise click.ClickException(f"celery {name} is refused: {why}")

    return refuse
