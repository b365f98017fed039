"""The vocabulary of this checkout, from its code, its Makefile and its alert rules."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
from celery.bin.celery import celery as celery_program

from dispatch.cli import main as cli
from dispatch.config.settings import GROUPS, PREFIX
from dispatch.gateway.application import operations
from launcher import console
from tools.docs.names import Vocabulary

#: Where the files are that pages name.
_FOLDERS = (
    "bench",
    "clients",
    "deploy",
    "dispatch",
    "docs",
    "examples",
    "launcher",
    "scripts",
    "tasks",
    "tests",
    "tools",
    ".ci",
)


def of_checkout(root: Path) -> Vocabulary:
    """What pages may name.

    Args:
        root: the checkout.
    """
    makefile = (root / "Makefile").read_text()
    compose = (root / "docker-compose.yml").read_text()
    rules = "".join(path.read_text() for path in (root / "deploy/prometheus/rules").glob("*.yml"))
    metrics = (root / "docs/reference/metrics.md").read_text()
    return Vocabulary(
        files=tuple(f"/{file.relative_to(root)}" for top in _FOLDERS for file in (root / top).rglob("*.*")),
        settings=frozenset(f"{PREFIX}{name.upper()}" for group in GROUPS for name in group.model_fields),
        targets=frozenset(re.findall(r"^([a-z0-9-]+):.*##", makefile, re.MULTILINE)),
        routes=frozenset(operation.path for operation in operations()),
        metrics=frozenset(re.findall(r"\brobot_[a-z_]+", metrics)),
        alerts=frozenset(re.findall(r"alert: (\w+)", rules)),
        services=frozenset(
            re.findall(r"^  ([a-z-]+):$", compose.partition("\nservices:")[2].partition("\nnetworks:")[0], re.MULTILINE)
        ),
        commands={"celery": _celery(), "dispatch": _ours(console.main)},
    )


def _celery() -> click.Group:
    """Celery's program as ``celery -A celery_app`` has it."""
    group = click.Group(name="celery", commands=dict(celery_program.commands), params=celery_program.params)
    for command in (cli.audit, cli.dlq, cli.jobs, cli.queues, cli.schedules, cli.tasks, cli.topology):
        group.add_command(_real(command))
    return group


def _ours(group: click.Group) -> click.Group:
    commands = {str(name): _real(each) for name, each in group.commands.items()}
    return click.Group(name="dispatch", commands=commands, params=group.params)


def _real(command: click.Command) -> click.Command:
    if not isinstance(command, cli.LazyCommand):
        return command
    found: click.Command = getattr(importlib.import_module(f"dispatch.cli.{command.name}"), str(command.name))
    return found
