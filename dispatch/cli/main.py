"""Our commands: ``celery -A celery_app audit | dlq | jobs | queues | schedules | tasks | topology`` and ``dispatch keys``.

`celery` loads all of them at each start, so a command's module is imported when the command is used.
"""

from __future__ import annotations

import importlib
from typing import Any

import click


class LazyCommand(click.Command):
    """A command whose module is imported when it is used.

    Args:
        name: of the command, and of the object in its module.
        help: one line for the list of commands.
    """

    def __init__(self, name: str, *, help: str) -> None:
        super().__init__(name, help=help)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command."""
        command: click.Command = getattr(importlib.import_module(f"dispatch.cli.{self.name}"), str(self.name))
        return command.make_context(info_name, args, parent=parent, **extra)


audit = LazyCommand("audit", help="What operators did, newest first.")
dlq = LazyCommand("dlq", help="Dead letters: list, show, redrive, discard, jobs, stop.")
queues = LazyCommand("queues", help="Ready, unacked, consumers, rates, limits and drift of every queue.")
jobs = LazyCommand("jobs", help="A verb on many tasks: list, show, start, stop.")
schedules = LazyCommand("schedules", help="Schedules: list, show, put, delete, pause, resume, run-now.")
tasks = LazyCommand("tasks", help="Tasks: list, show, events, stats, submit, pause, resume, keys.")
topology = LazyCommand("topology", help="The broker map: plan, apply, verify, show, definitions.")


@click.group()
def main() -> None:
    """Robot Dispatch: commands that need no running system."""


main.add_command(LazyCommand("keys", help="API keys: new, list, revoke."))
