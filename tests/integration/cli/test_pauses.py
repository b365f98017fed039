"""``celery tasks pause | resume | pauses`` on a real Redis."""

import json
import types

import pytest
from click.testing import CliRunner

from celery_app import create_celery
from dispatch.cli import tasks as module
from dispatch.store.pauses import HeldTasks
from support.stores import Stores


@pytest.fixture
def world(settings):
    stores, celery = Stores(settings), create_celery(settings)

    def run(*words):
        return CliRunner().invoke(module.tasks, words, obj=types.SimpleNamespace(app=celery))

    yield types.SimpleNamespace(stores=stores, run=run)
    stores.close()


def test_a_pause_is_made_shown_and_ended_and_each_is_audited(world):
    held = HeldTasks(world.stores.redis)
    world.stores.redis.run(*held.listing("type:echo", "t-1"), *held.listing("type:echo", "t-2"))
    made = world.run("pause", "type:echo", "--reason", "repairs", "--until", "2h", "--as", "ada")
    shown = json.loads(world.run("pauses", "--json").stdout)
    table = world.run("pauses").stdout
    ended = world.run("resume", "type:echo", "--json")
    entries = [each.entry for each in world.stores.audit.page().items]

    assert made.exit_code == 0, made.output
    assert [(one["what"], one["reason"], one["held"]) for one in shown] == [("type:echo", "repairs", 2)]
    assert shown[0]["until"] > shown[0]["at"]
    assert "type:echo" in table
    assert json.loads(ended.stdout) == {"what": "type:echo", "held": 2}
    assert [(each.verb, each.target, each.result) for each in entries] == [
        ("resumeTasks", "type:echo", "ok"),
        ("pauseTasks", "type:echo", "ok"),
    ]
    assert entries[1].principal.endswith("/ada")
    assert world.run("pauses").stdout == "nothing is paused\n"


def test_what_is_not_paused_cannot_be_resumed(world):
    refused = world.run("resume", "all")

    assert refused.exit_code == 1
    assert world.stores.audit.page().items[0].entry.result == "pause-not-found"


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "everything", "--reason", "r"),
        ("pause", "all"),
        ("pause", "all", "--reason", ""),
        ("pause", "all", "--reason", "r", "--until", "2020-01-01T00:00:00Z"),
        ("pause", "all", "--reason", "r", "--until", "soon"),
        ("resume", "type:"),
    ],
)
def test_wrong_use_pauses_nothing(world, words):
    assert world.run(*words).exit_code == 2
    assert json.loads(world.run("pauses", "--json").stdout) == []
