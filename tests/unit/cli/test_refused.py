"""Each command of Celery's own works here, or is refused in one line with what to use."""

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from celery.bin.celery import celery
from click.testing import CliRunner

from dispatch.cli import refused
from support.cases import each

#: Commands that work; `tests/system` and docs/reference/cli.md have them.
WORK = {"control", "events", "flower", "graph", "inspect", "report", "shell", "status", "worker"}

OURS = {"audit", "dlq", "jobs", "queues", "schedules", "tasks", "topology"}


@pytest.fixture
def installed():
    """With the refusals; Celery's own callbacks are back afterwards."""
    found = [refused._find(celery.commands, name) for name in (*refused.REFUSED, "control", "inspect")]
    before = [(command, command.callback) for command in found]
    refused.install()
    yield
    for command, callback in before:
        command.callback = callback


def test_each_command_of_celerys_is_known_to_work_or_refused():
    whole = {name for name in refused.REFUSED if " " not in name}

    assert set(celery.commands) - OURS == WORK | whole
    assert not WORK & whole


@pytest.mark.usefixtures("installed")
@each(
    ("words", "instead"),
    [
        (["amqp", "queue.purge", "robot.task.q"], "celery_app topology"),
        (["amqp"], "celery_app topology"),
        (["beat"], "schedules put"),
        (["call", "echo"], "POST /v1/tasks"),
        (["graph", "bootsteps"], "architecture.md"),
        (["list", "bindings"], "topology show"),
        (["logtool", "stats", "x"], "logs.md"),
        (["migrate", "amqp://a", "amqp://b"], "migrate-a-queue.md"),
        (["multi", "start", "1"], "make up"),
        (["purge", "-f"], "dlq discard"),
        (["result", "a-task"], "GET /v1/tasks/{taskId}"),
        (["upgrade", "settings", "x"], "settings.md"),
    ],
)
def test_a_command_is_refused_in_one_line(words, instead):
    obj = CLIContext(app=Celery("none"), no_color=True, workdir=None)
    done = CliRunner().invoke(celery.commands[words[0]], words[1:], obj=obj)

    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.output
    assert f"celery {words[0]}" in done.stderr
    assert instead in done.stderr
