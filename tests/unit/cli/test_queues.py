"""``celery -A celery_app queues``: the table."""

import dataclasses
import json

import pytest

from dispatch.broker.management import ManagementUnavailable
from dispatch.broker.queue_stats import QueueView
from dispatch.cli import queues as queues_cli
from dispatch.config.settings import load
from support.commands import invoke

WORK = QueueView(
    name="robot.task.q", role="work", ready=12, unacked=40, total=52, dead_lettering=None, consumers=2, publish_rate=3.25,
    deliver_rate=0.0, ack_rate=None, ttl=3_600.0, dead_letter_exchange="robot.task.dlx", max_length=12_000,
    delivery_limit=200, guard={"limit": 10_000, "refusing": True}, policy="robot.work", bindings=(), drift=(), as_of=1_795_487_760_000,
)  # fmt: skip
GONE = dataclasses.replace(
    WORK, name="robot.retry.q.1m", role="rung", ready=None, unacked=None, total=None, consumers=None, ttl=None,
    policy=None, max_length=None, guard=None, drift=("the queue is missing",),
)  # fmt: skip


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(queues_cli.time, "sleep", lambda _: None)

    def command(*words, found=(WORK, GONE)):
        def snapshot(_wanted, _settings, *, depth_limit):
            assert depth_limit == 10_000
            if isinstance(found, BaseException):
                raise found
            return list(found)

        monkeypatch.setattr(queues_cli.queue_stats, "snapshot", snapshot)
        return invoke(queues_cli.queues, load({}), *words)

    return command


def test_the_table_says_what_waits_where_and_what_is_not_as_it_should_be(run):
    lines = run().stdout.splitlines()

    assert lines[1].split() == [
        "robot.task.q",
        "work",
        "12",
        "40",
        "52",
        "2",
        "3.2",
        "0.0",
        "-",
        "3600s",
        "12000",
        "10000",
        "429!",
        "robot.work",
        "-",
    ]
    assert lines[2].split()[:6] == ["robot.retry.q.1m", "rung", "-", "-", "-", "-"]
    assert lines[4:] == ["robot.retry.q.1m: the queue is missing", "as of 2026-11-24T02:36:00.000Z"]


def test_json_is_what_the_api_shows(run):
    assert json.loads(run("--json").stdout) == [WORK.to_json(), GONE.to_json()]


def test_a_broker_that_does_not_answer_is_one_line_and_exit_code_2(run):
    done = run(found=ManagementUnavailable("no answer"))

    assert (done.exit_code, done.stderr) == (2, "queues: no answer\n")


def test_ctrl_c_ends_watching_quietly(run):
    done = run("--watch", found=KeyboardInterrupt())

    assert (done.exit_code, done.output) == (0, "")


def test_a_count_without_watching_is_refused(run):
    done = run("--count", "2")

    assert (done.exit_code, "--count goes with --watch" in done.stderr) == (2, True)


def test_watching_goes_on_through_an_outage(run):
    good, bad = run("--watch", "--count", "3"), run("--watch", "--count", "2", found=ManagementUnavailable("no answer"))

    assert good.stdout.count("robot.task.q ") == 3
    assert (bad.exit_code, bad.stderr.count("no answer")) == (0, 2)
