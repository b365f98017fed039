"""Commands whose modules are imported when they are used."""

import importlib
import types

import click
import pytest
from click.testing import CliRunner

from dispatch.cli import main as module
from dispatch.cli.main import LazyCommand, main


@pytest.fixture
def imported(monkeypatch):
    """The modules that are imported for a command; each has a command that greets."""
    names = []

    @click.command()
    @click.argument("name")
    def greet(name):
        """Greet at length."""
        click.echo(f"hello {name}")

    def import_module(name):
        names.append(name)
        return types.SimpleNamespace(greet=greet)

    monkeypatch.setattr(module, "importlib", types.SimpleNamespace(import_module=import_module))
    return names


@pytest.fixture
def group():
    group = click.Group()
    group.add_command(LazyCommand("greet", help="Greet."))
    return group


def test_the_list_of_commands_imports_nothing(imported, group):
    done = CliRunner().invoke(group, ["--help"])

    assert "greet  Greet." in done.stdout
    assert imported == []


def test_a_command_that_is_used_is_imported_and_runs_with_its_words(imported, group):
    done = CliRunner().invoke(group, ["greet", "ada"])

    assert (done.exit_code, done.stdout) == (0, "hello ada\n")
    assert imported == ["dispatch.cli.greet"]


@pytest.mark.usefixtures("imported")
def test_the_help_of_a_command_is_its_own(group):
    assert "Greet at length." in CliRunner().invoke(group, ["greet", "--help"]).stdout


@pytest.mark.usefixtures("imported")
def test_a_wrong_use_is_reported_as_the_commands_own(group):
    done = CliRunner().invoke(group, ["greet"])

    assert (done.exit_code, "Missing argument 'NAME'" in done.stderr) == (2, True)


def test_each_command_is_in_the_module_of_its_name():
    commands = [
        module.audit,
        module.dlq,
        module.jobs,
        module.queues,
        module.schedules,
        module.tasks,
        module.topology,
        *main.commands.values(),
    ]
    found = [getattr(importlib.import_module(f"dispatch.cli.{each.name}"), each.name) for each in commands]

    names = {"audit", "dlq", "jobs", "queues", "schedules", "tasks", "topology", "keys"}
    assert {command.name for command in commands} == names
    assert all(isinstance(command, click.Command) for command in found)
