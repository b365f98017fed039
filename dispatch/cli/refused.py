"""Celery's own commands that would lose or double accepted tasks, or can't work here: refused, with what to use instead.

docs/reference/cli.md lists them all.

`celery control` and `inspect` print a worker's refusal and exit with 0: here with 1, so that a script notices.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

#: Why a command is refused, and what to use. A name of two words is a command of a group.
REFUSED = {
    "amqp": "its shell purges and deletes queues with accepted tasks: look with `celery -A celery_app queues`, and change "
    "exchanges, queues and policies with `celery -A celery_app topology`",
    "beat": "what it publishes has no record: PUT /v1/schedules/{name}, or `celery -A celery_app schedules put`, submits tasks again and again",
    "call": "a task needs a record before its message: submit it with `celery -A celery_app tasks submit`, or POST /v1/tasks",
    "graph bootsteps": "it would build a worker: docs/explanation/architecture.md has the picture",
    "list": "it needs pyrabbit, which is not maintained: `celery -A celery_app topology show` has the bindings, "
    "`celery -A celery_app queues --json` those of the live broker",
    "logtool": "it reads Celery's text lines, and ours are JSON: use jq, as in docs/reference/logs.md",
    "migrate": "it takes messages from one broker before another has confirmed them: docs/how-to/migrate-a-queue.md",
    "multi": "nothing would restart its workers or keep their logs: `make up`, docker compose or systemd do",
    "purge": "what waits in the queue has been accepted, and would come back: stop the clients, let the workers finish, and "
    "discard dead letters with `celery -A celery_app dlq discard`",
    "result": "results are in the tasks' records: `celery -A celery_app tasks show`, or GET /v1/tasks/{taskId}",
    "upgrade": "there is no file of Celery's settings: docs/reference/settings.md has ours",
}


def install() -> None:
    """Refuse them in this process, if it is Celery's command line.

    Celery registers its own commands after those of entry points, so that a command of the same name would be replaced;
    and by the time that the app is imported, click has chosen the command: only its callback can still be another.
    """
    module = sys.modules.get("celery.bin.celery")
    commands = module.celery.commands if module is not None else {}
    for name, why in REFUSED.items():
        if (command := _find(commands, name)) is not None:
            command.callback = _refusing(name, why)
    for name in ("control", "inspect"):
        if name in commands:
            commands[name].callback = _reporting(commands[name].callback)


def _find(commands: Mapping[str, click.Command], name: str) -> click.Command | None:
    group, _, own = name.partition(" ")
    found = commands.get(group)
    return found.commands.get(own) if own and isinstance(found, click.Group) else found


def _refusing(name: str, why: str) -> Callable[..., None]:
    def refuse(*_: Any, **__: Any) -> None:
        raise click.ClickException(f"celery {name} is refused: {why}")

    return refuse


def _reporting(carry_out: Callable[..., Any]) -> Callable[..., None]:
    def command(*args: Any, **options: Any) -> None:
        control = click.get_current_context().obj.app.control
        carry_out(*args, **options)
        if control.refused:  # printed already
            raise SystemExit(1)

    return command
