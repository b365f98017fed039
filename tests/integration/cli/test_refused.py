"""Celery's own commands that would lose or double tasks are refused, with what to use."""

import amqp
import kombu
import pytest
from celery.platforms import EX_UNAVAILABLE

import topology
from dispatch.broker import provision
from dispatch.protocol import names
from support import processes
from support.worker import environment


def celery(settings, *words, **variables):
    """The exit code, and what a command of Celery's printed."""
    done = processes.run("celery", ["-A", "celery_app", *words], environ={**environment(settings), **variables})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["call", "echo", "--countdown", "3"], "POST /v1/tasks"),
        (["call", "no.such.type"], "POST /v1/tasks"),
        (["purge", "-f"], "celery_app dlq discard"),
        (["purge", "-f", "-Q", names.DEAD_QUEUE], "celery_app dlq discard"),
        (["migrate", "amqp://a", "amqp://b"], "migrate-a-queue.md"),
        (["list", "bindings"], "topology show"),
        (["result", "a-task"], "GET /v1/tasks/{taskId}"),
        (["control", "revoke", "a-task"], "celery_app dlq discard"),
        (["worker", "--pool", "solo"], "the prefork pool"),
        (["worker", "-P", "gevent"], "--pool=threads, for handlers that wait"),
        (["worker", "-P", "threads", "--autoscale", "8,2"], "by --concurrency or DISPATCH_WORKER_THREADS"),
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

    assert code in {1, EX_UNAVAILABLE}, text
    assert instead in text
    assert "Traceback" not in text
    assert left == 1


def test_threads_have_no_control_command_of_processes(settings):
    variables = {"DISPATCH_CONTROL_COMMANDS": "shutdown,terminate"}
    code, text = celery(settings, "worker", "--pool=threads", **variables)

    assert code == 1, text
    assert "DISPATCH_CONTROL_COMMANDS: terminate can't work with --pool=threads" in text


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        ("shutdown,shut_down", "DISPATCH_CONTROL_COMMANDS: no such remote-control command: shut_down"),
        ("shutdown,revoke", "DISPATCH_CONTROL_COMMANDS: have no effect here but an OK: revoke"),
    ],
    ids=["unknown", "without an effect"],
)
def test_a_worker_does_not_start_with_a_control_command_that_does_nothing(settings, commands, why):
    code, text = celery(settings, "worker", DISPATCH_CONTROL_COMMANDS=commands)

    assert code == 1, text
    assert why in text
    assert "Traceback" not in text
