"""``celery schedules`` against a real gateway."""

import json
import types

import pytest
from click.testing import CliRunner

from celery_app import create_celery
from dispatch.cli import schedules as module
from dispatch.cli.output import NOT_DONE, UNANSWERED
from support.gateway_live import running_gateway
from support.ports import free_port


@pytest.fixture(scope="module")
def run(module_settings):
    celery = create_celery(module_settings)
    port = free_port()

    def invoke(*words, url=f"http://127.0.0.1:{port}"):
        given = [*words, "--url", url]
        return CliRunner().invoke(module.schedules, given, obj=types.SimpleNamespace(app=celery))

    with running_gateway(module_settings, port):
        yield invoke


def test_a_schedule_from_its_creation_to_its_end(run):
    created = run("put", "nightly", "echo", '{"message": "hi"}', "--cron", "0 3 * * *", "--label", "a=b", "--json")
    listed, table = run("list", "--json"), run("list")
    shown = run("show", "nightly")
    paused = run("pause", "nightly", "--json")
    resumed = run("resume", "nightly", "--json")
    task = run("run-now", "nightly", "--json")
    gone, empty = run("delete", "nightly"), run("list")

    assert [each.exit_code for each in (created, listed, table, shown, paused, resumed, task, gone, empty)] == [0] * 9
    assert json.loads(created.stdout)["options"] == {"labels": {"a": "b"}}
    assert json.loads(listed.stdout)["name"] == "nightly"
    assert table.stdout.splitlines()[1].split()[:7] == ["nightly", "echo", "0", "3", "*", "*", "*"]
    assert "cron           0 3 * * *" in shown.stdout
    assert [json.loads(each.stdout)["paused"] for each in (paused, resumed)] == [True, False]
    assert json.loads(task.stdout)["labels"] == {"a": "b", "schedule": "nightly"}
    assert empty.stdout == "no schedules\n"


def test_what_the_gateway_refuses_is_not_done_and_has_its_place(run):
    refused = run("put", "nightly", "echo", '{"message": "hi"}', "--cron", "0 3 * *")
    missing = run("show", "nothing-of-that-name")
    unanswered = run("list", url=f"http://127.0.0.1:{free_port()}")
    malformed = run("put", "nightly", "echo", "{", "--cron", "0 3 * * *")

    assert [each.exit_code for each in (refused, missing, unanswered, malformed)] == [
        NOT_DONE,
        NOT_DONE,
        UNANSWERED,
        UNANSWERED,
    ]
    assert "/cron" in refused.stderr
    assert "schedule-not-found" in missing.stderr
