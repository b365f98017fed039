"""What an environment may not do to a command: follow another project, or answer with a traceback."""

import pytest

from dispatch.protocol import names
from launcher import envfile, plan
from launcher.rundir import RunDir
from support import processes
from support.worker import environment

OTHER = "amqp://u:hush@127.0.0.1:1/other"


def test_a_command_follows_our_broker_and_names_what_it_ignores(settings):
    foreign = {"CELERY_BROKER_URL": OTHER, "CELERY_BROKER_READ_URL": OTHER, "BROKER_URL": OTHER}
    ours = {**environment(settings), **foreign}
    applied = processes.run("celery", ["-A", "celery_app", "topology", "apply"], environ=ours)
    asked = processes.run("celery", ["-A", "celery_app", "inspect", "ping", "--timeout", "0.3"], environ=ours)

    assert applied.returncode == 0, applied.stderr
    for done in (applied, asked):
        assert "CELERY_BROKER_URL is ignored: set DISPATCH_BROKER_URL" in done.stderr
        assert "hush" not in done.stdout + done.stderr
    assert "No nodes replied" in asked.stderr  # it asked our broker; the other one refuses connections


@pytest.mark.parametrize(
    "words",
    [
        ["celery", "-A", "celery_app", "worker"],
        ["celery", "-A", "celery_app", "topology", "show"],
        ["celery", "-A", "celery_app", "flower"],
        ["flask", "--app", "app", "routes"],
        ["gunicorn", "-c", "python:dispatch.gateway.gunicorn_conf", "app:create_app()"],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_wrong_settings_are_a_line_each_and_exit_2(words):
    wrong = {"DISPATCH_LADER": "1m=1", "DISPATCH_HTTP_PORT": "eighty", "DISPATCH_RUN_DIR": "/nonexistent"}
    done = processes.run(words[0], words[1:], environ=wrong)

    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        "DISPATCH_LADER: no such setting; did you mean DISPATCH_LADDER?",
        "DISPATCH_HTTP_PORT: Input should be a valid integer, unable to parse string as an integer",
    ]
    assert done.stdout == ""


@pytest.mark.parametrize("module", ["app", "celery_app"])
def test_a_root_file_names_the_command_that_runs_it(module):
    done = processes.run(module, [], environ={})

    assert done.returncode == 1
    assert done.stderr.startswith("start ")


def test_a_command_in_a_bare_shell_finds_the_running_stack_and_names_what_it_can_not_reach(settings, tmp_path):
    variables = plan.shared(settings)
    run = RunDir.at(tmp_path / "run")
    envfile.write(run.env, variables)
    bare = {"DISPATCH_RUN_DIR": str(run.path)}
    applied = processes.run("celery", ["-A", "celery_app", "topology", "apply"], environ=bare)
    envfile.write(run.env, {**variables, "DISPATCH_REDIS_URL": "redis://:hush@127.0.0.1:1/3"})
    listed = processes.run("celery", ["-A", "celery_app", "dlq", "list"], environ=bare)
    note = f"settings of the running stack, {run.env}\n"

    assert (applied.returncode, applied.stderr) == (0, note)
    assert names.rung_queue("1m") in applied.stdout
    assert listed.returncode == 2
    assert listed.stderr.startswith(
        f"{note}dlq: Redis at 127.0.0.1:1/3: connection refused: nothing listens at its port"
    )
    assert "hush" not in listed.stderr
