"""docs/reference/cli.md has every command and every option, an example of each, and its exit codes."""

import importlib
import re
from pathlib import Path

import click
import pytest

from dispatch.cli import main as entry
from dispatch.cli import output, pipes, refused
from launcher.__main__ import _parser

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reference/cli.md").read_text()


def commands():
    """Each command by its words, without the program."""
    for lazy in (
        entry.audit,
        entry.dlq,
        entry.jobs,
        entry.queues,
        entry.schedules,
        entry.tasks,
        entry.topology,
        *entry.main.commands.values(),
    ):
        command = getattr(importlib.import_module(f"dispatch.cli.{lazy.name}"), lazy.name)
        verbs = command.commands.items() if isinstance(command, click.Group) else []
        yield from ((f"{lazy.name} {verb}", each) for verb, each in verbs)
        if not verbs:
            yield lazy.name, command


COMMANDS = dict(commands())


def section(words):
    """The text below a command's heading."""
    found = re.search(rf"^##+ `(?:celery -A celery_app )?{words}`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_has_an_example_its_options_and_its_exit_codes(words):
    options = [each for option in COMMANDS[words].params for each in option.opts if each.startswith("--")]
    shared = PAGE.partition("### `keys new`")[0]  # --file of every `keys`
    text = section(words)

    assert re.search(rf"^\$ (celery -A celery_app|dispatch) {words}", text, re.MULTILINE)
    assert [
        option for option in options if f"{option}" not in text and not (option == "--file" and option in shared)
    ] == []
    assert re.search(r"Exit codes 0,( \d+)?", text)


def test_every_command_answers_programs_in_json():
    silent = [words for words, each in COMMANDS.items() if "--json" not in {o for p in each.params for o in p.opts}]

    assert silent == ["topology definitions"]  # JSON anyway


def test_no_heading_is_of_a_command_that_is_not_there():
    found = {each.removeprefix("celery -A celery_app ") for each in re.findall(r"^##+ `([^`]+)`$", PAGE, re.MULTILINE)}
    groups = {"dlq", "jobs", "schedules", "tasks", "topology", "dispatch keys", "python -m launcher"}

    assert found == {*COMMANDS, *groups}


def test_the_launchers_verbs_the_refusals_and_the_shared_exit_codes_are_there():
    (verbs,) = (action.choices for action in _parser()._actions if action.choices and action.dest == "verb")
    codes = (0, output.NOT_DONE, output.UNANSWERED, output.INTERRUPTED, pipes.NO_READER)
    rows = {name: re.search(rf"^\| `{name}( \w+)?` \| refused", PAGE, re.MULTILINE) for name in refused.REFUSED}

    assert [verb for verb in verbs if f"| `launcher {verb}` |" not in PAGE] == []
    assert [code for code in codes if f"\n| {code} | " not in PAGE] == []
    assert [name for name, row in rows.items() if row is None] == []
