import json

import kombu
import pytest

from dispatch.cli.topology import topology as command
from dispatch.protocol import names
from dispatch.protocol.retry import Ladder
from support.commands import invoke


@pytest.fixture
def run(settings):
    """Runs ``topology …`` with the test's settings, and optionally others; returns the result."""

    def run_with(*words, **changes):
        return invoke(command, settings.model_copy(update=changes), *words)

    return run_with


def declare_another_work_queue(settings):
    with kombu.Connection(settings.broker("admin")) as connection:
        connection.default_channel.queue_declare(names.WORK_QUEUE, durable=True, auto_delete=False)


def test_plan_lists_what_apply_would_create(run):
    result = run("plan")

    assert result.exit_code == 0
    assert "create  queue     robot.retry.q.5m" in result.stdout


def test_verify_exits_with_1_on_drift_and_with_0_after_apply(run):
    codes = [run("verify").exit_code, run("apply").exit_code, run("verify").exit_code]

    assert codes == [1, 0, 0]
    assert run("verify").stdout == "No drift.\n"
    assert run("apply").stdout == run("plan").stdout == "Nothing to do: the broker matches the map.\n"


def test_extra_queues_are_drift_for_a_strict_verify_only(run, settings):
    run("apply")
    shorter = Ladder(settings.ladder.rungs[:2])

    assert [run("verify", *strict, ladder=shorter).exit_code for strict in ([], ["--strict"])] == [0, 1]


def test_verify_as_json_is_a_metric(run):
    report = json.loads(run("verify", "--json").stdout)

    assert report["drift"] == len(report["differences"]) == 19 + 5 + 5 + 8 + 1
    assert report["differences"][0] == {
        "kind": "exchange",
        "name": "robot.task.topic",
        "verdict": "missing",
        "action": "create",
        "detail": "not there",
    }


def test_a_conflict_is_explained_with_exit_code_1(run, settings):
    declare_another_work_queue(settings)

    result = run("apply")

    assert result.exit_code == 1
    assert "robot.task.q is there with other arguments" in result.stderr
    assert "PRECONDITION_FAILED" not in result.stderr  # RabbitMQ's own words
    assert "Traceback" not in result.output


def test_plan_shows_a_conflict_as_refused(run, settings):
    declare_another_work_queue(settings)

    assert "refuse  queue     robot.task.q" in run("plan").stdout


@pytest.mark.parametrize("verb", ["plan", "apply", "verify"])
def test_a_broker_that_cannot_be_asked_is_one_line_and_exit_code_2(run, settings, monkeypatch, verb):
    monkeypatch.setenv(
        "DISPATCH_MANAGEMENT_URL", "http://127.0.0.1:1"
    )  # otherwise a second line is about where servers are named
    away = type(settings.management_url)("http://127.0.0.1:1")

    result = run(verb, management_url=away)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("topology: RabbitMQ's management API at 127.0.0.1:1 did not answer")


def test_show_prints_the_map_and_asks_no_broker(run, settings):
    away = {"broker_url": type(settings.broker_url)("amqp://127.0.0.1:1/x")}

    assert "x-message-ttl=2000" in run("show", **away).stdout
    assert json.loads(run("show", "--json", **away).stdout)["queues"][0]["name"] == "robot.task.q"
    assert run("show", "--markdown", **away).stdout.startswith("# The broker map")


def test_definitions_need_a_user_for_each_role(run):
    result = run("definitions", "--users")

    assert result.exit_code == 2
    assert "another role has the user" in result.stderr
