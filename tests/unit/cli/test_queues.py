"""``celery -A celery_app queues``: the table, and how old the oldest task is."""

import dataclasses
import json

import pytest

from dispatch.broker.management import ManagementUnavailable
from dispatch.broker.queue_stats import QueueView
from dispatch.cli import queues as queues_cli
from dispatch.config.settings import load
from dispatch.errors import StoreUnavailable
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


LEVEL = dataclasses.replace(
    GONE, name="robot.delay.q.0", role="delay", ready=3, unacked=0, total=3, consumers=0, publish_rate=1.0, ttl=1.0, drift=(),
)  # fmt: skip
LEVELS = (
    LEVEL,
    dataclasses.replace(LEVEL, name="robot.delay.q.1", ready=4, total=4, drift=("its binding is missing",)),
)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(queues_cli.time, "sleep", lambda _: None)

    def command(*words, found=(WORK, GONE)):
        def snapshot(_wanted, _settings, *, depth_limits):
            assert depth_limits == {"robot.task.q": 10_000}
            if isinstance(found, BaseException):
                raise found
            return list(found)

        monkeypatch.setattr(queues_cli.queue_stats, "snapshot", snapshot)
        monkeypatch.setattr(queues_cli, "_ages", lambda _settings: {"robot.task.q": 3_725.0, "robot.task.dlq": 0.0})
        return invoke(queues_cli.queues, load({}), *words)

    return command


def test_the_table_shows_what_waits_where_and_what_is_not_as_it_should_be(run):
    lines = run().stdout.splitlines()

    assert lines[1].split() == [
        "robot.task.q",
        "work",
        "12",
        "40",
        "52",
        "1h",
        "2m",
        "2",
        "3.2",
        "0.0",
        "-",
        "1h",
        "12000",
        "10000",
        "429!",
        "robot.work",
        "-",
    ]
    assert lines[2].split()[:6] == ["robot.retry.q.1m", "rung", "-", "-", "-", "-"]
    assert lines[4:] == ["robot.retry.q.1m: the queue is missing", "as of 2026-11-24T02:36:00.000Z"]


def test_json_is_what_the_api_shows_and_the_age(run):
    ages = [{"oldestAge": 3_725.0}, {"oldestAge": None}]

    assert json.loads(run("--json").stdout) == [
        {**view.to_json(), **own} for view, own in zip((WORK, GONE), ages, strict=True)
    ]


def test_a_narrow_terminal_lacks_the_columns_that_matter_least(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "66")
    lines = run().stdout.splitlines()

    assert max(map(len, lines[:3])) <= 66
    assert lines[0].split() == ["QUEUE", "READY", "UNACKED", "OLDEST", "CONSUMERS", "GUARD"]


def test_no_queues_is_a_line_that_names_what_declares_them(run):
    assert "no queues" in run(found=()).stdout


def test_without_redis_the_queues_are_shown_and_the_ages_are_not(monkeypatch, run):
    def away(_):
        raise StoreUnavailable("Redis is away")

    read = queues_cli._ages
    done = run()
    monkeypatch.setattr(queues_cli, "_ages", read)
    monkeypatch.setattr(queues_cli.Oldest, "ages", away)
    done = invoke(queues_cli.queues, load({}))

    assert (done.exit_code, done.stderr) == (0, "queues: the ages can't be read: Redis is away\n")
    assert "robot.task.q " in done.stdout


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


def test_the_delay_levels_are_one_line(run):
    text = run(found=(WORK, *LEVELS, GONE)).stdout
    lines = text.splitlines()

    assert [line.split()[0] for line in lines[1:4]] == ["robot.task.q", "robot.delay.q.*", "robot.retry.q.1m"]
    assert lines[2].split() == ["robot.delay.q.*", "delay", "7", "0", "7", "-", "0", *"------", "-", "1"]
    assert "robot.delay.q.1: its binding is missing" in text


def test_each_delay_level_is_a_line_on_request(run):
    lines = run("--levels", found=(WORK, *LEVELS)).stdout.splitlines()

    assert [line.split()[0] for line in lines[1:4]] == ["robot.task.q", "robot.delay.q.0", "robot.delay.q.1"]


def test_a_level_that_is_not_there_adds_nothing(run):
    gone = dataclasses.replace(LEVELS[1], ready=None, unacked=None, total=None, consumers=None)

    assert run(found=(LEVEL, gone)).stdout.splitlines()[1].split()[2:5] == ["3", "0", "3"]
