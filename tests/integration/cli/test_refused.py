"""Celery's own commands that would lose or double tasks are refused, with what to use."""

import subprocess
import sys

import amqp
import kombu
import pytest

import topology
from dispatch.broker import provision
from dispatch.protocol import names
from support.worker import ROOT, environment


def celery(settings, *words, **variables):
    """The exit code, and what a command of Celery's printed."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "celery_app", *words],
        cwd=ROOT,
        env={**environment(settings), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["call", "echo", "--countdown", "3"], "POST /v1/tasks"),
        (["call", "no.such.type"], "POST /v1/tasks"),
        (["purge", "-f"], "celery_app dlq discard"),
        (["purge", "-f", "-Q", names.DEAD_QUEUE], "celery_app dlq discard"),
        (["migrate", "amqp://a", "amqp://b"], "migrate-a-queue.md"),
        (["worker", "--pool", "solo"], "the prefork pool"),
        (["worker", "-P", "threads"], "the prefork pool"),
        (["worker", "--purge"], "--purge is refused"),
    ],
    ids=" ".join,
)
def test_a_command_is_refused_in_one_line_and_does_nothing(settings, words, instead):
    provision.apply(topology.broker_map(settings), settings)
    with kombu.Connection(settings.broker("admin")) as connection:
        channel = connection.default_channel
        channel.basic_publish(amqp.Message("x"), names.TASK_EXCHANGE, names.ROUTING_KEY)
        code, text = celery(settings, *words)
        left = channel.queue_declare(names.WORK_QUEUE, passive=True).message_count

    assert code == 1, text
    assert instead in text
    assert "Traceback" not in text
    assert left == 1


def test_a_worker_does_not_start_with_a_control_command_that_there_is_not(settings):
    code, text = celery(settings, "worker", DISPATCH_CONTROL_COMMANDS="shutdown,shut_down")

    assert code == 1, text
    assert "DISPATCH_CONTROL_COMMANDS: no such remote-control command: shut_down" in text
    assert "Traceback" not in text
