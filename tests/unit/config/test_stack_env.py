"""A shell that names no server takes over the settings of a running stack; any other is warned where it differs."""

import shlex
import subprocess
from pathlib import Path

import pytest

from dispatch.config import stack_env
from support.cases import each

URL = "amqp://u:p%40w@h:1/v;amqp://u:p@i:2/v"
FILE = {
    "DISPATCH_BROKER_URL": URL,
    "DISPATCH_LADDER": "1m=1,5m=2",
    "DISPATCH_BROKER_TLS_CA": "/a directory/it's ca.pem",
    "DISPATCH_MESSAGE_KEYS": "",
    "WORKER_PID": "12",
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pyproject.toml").touch()  # a checkout
    run = tmp_path / ".run"
    run.mkdir()
    (run / "env").write_text("".join(stack_env.line(key, value) for key, value in FILE.items()))
    (run / "env").chmod(0o600)
    return tmp_path


def test_what_is_written_is_what_a_shell_and_a_command_read(root):
    path = root / ".run" / "env"
    script = f"set -a; . {shlex.quote(str(path))}; env -0"
    words = ["env", "-i", "sh", "-c", script]
    sourced = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert stack_env.parse(path.read_text()) == FILE
    assert FILE.items() <= dict(pair.partition("=")[::2] for pair in sourced.split("\0")).items()


@each(
    "environ",
    [
        {},
        {"PATH": "/bin", "DISPATCH_LADDER": "1m=1, 5m=2"},
        {"DISPATCH_REDIS_URL": " ", "DISPATCH_MESSAGE_KEYS": ""},
    ],
)
def test_a_shell_that_names_no_server_has_the_stacks_settings(environ, root):
    notes = stack_env.adopt(environ, root)

    assert environ["DISPATCH_BROKER_URL"] == URL
    assert "WORKER_PID" not in environ
    assert notes == [f"settings of the running stack, {root}/.run/env"]


def test_what_a_shell_sets_itself_counts_and_is_named(root):
    environ = {"DISPATCH_LADDER": "1m=9"}
    (note,) = stack_env.adopt(environ, root)

    assert (environ["DISPATCH_LADDER"], environ["DISPATCH_BROKER_URL"]) == ("1m=9", URL)
    assert note.endswith(", but for DISPATCH_LADDER of this shell")


@each(
    ("environ", "noted"),
    [
        ({"DISPATCH_REDIS_URL": "redis://h"}, False),
        ({"DISPATCH_WORKER_BROKER_URL": "amqp://h/v"}, False),
        ({"DISPATCH_BROKER_URL": "amqp://elsewhere/v", "DISPATCH_LADDER": "1m=9"}, False),
        ({"DISPATCH_BROKER_URL": URL}, False),
        ({"DISPATCH_BROKER_URL": URL, "DISPATCH_LADDER": "1m=9"}, True),  # sourced from an earlier stack's file
        ({"DISPATCH_BROKER_URL": URL, "DISPATCH_LADDER": "1m=9", "ROBOT_DISPATCH_RUN": "/r"}, False),
        ({"ROBOT_DISPATCH_RUN": "/r"}, False),  # started by the launcher
        ({"DISPATCH_RUN_DIR": "/nonexistent"}, False),
    ],
)
def test_a_shell_that_names_a_server_keeps_its_settings(environ, noted, root):
    given = dict(environ)
    notes = stack_env.adopt(environ, root)

    assert environ == given
    assert [note.partition(" (")[0] for note in notes] == (
        ["not as in the running stack: DISPATCH_LADDER"] if noted else []
    )


def test_a_file_that_another_user_may_write_is_not_read(root):
    (root / ".run" / "env").chmod(0o622)
    environ = {}
    (note,) = stack_env.adopt(environ, root)

    assert environ == {}
    assert note.endswith("is not read: another user may write it")


@each(
    ("environ", "expected"),
    [
        ({}, "ROOT/.run"),
        ({"XDG_STATE_HOME": "/state", "HOME": "/home/ada"}, "ROOT/.run"),
        ({"DISPATCH_RUN_DIR": "elsewhere"}, "ROOT/elsewhere"),
        ({"DISPATCH_RUN_DIR": "/srv/robot"}, "/srv/robot"),
    ],
)
def test_the_run_directory_of_a_checkout_is_in_it(tmp_path, environ, expected):
    (tmp_path / "pyproject.toml").touch()

    assert stack_env.run_directory(environ, tmp_path) == Path(expected.replace("ROOT", str(tmp_path)))


@each(
    ("environ", "expected"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/state/robot-dispatch"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "/state"}, "/state/robot-dispatch"),
        ({"HOME": "/home/ada", "XDG_STATE_HOME": "relative/is/invalid"}, "/home/ada/.local/state/robot-dispatch"),
        ({"HOME": "/home/ada", "DISPATCH_RUN_DIR": "here"}, "CURRENT/here"),
        ({"HOME": "/home/ada", "DISPATCH_RUN_DIR": " "}, "/home/ada/.local/state/robot-dispatch"),
        ({"HOME": "/home/ada", "DISPATCH_RUN_DIR": "/srv/robot"}, "/srv/robot"),
        ({}, "CURRENT/.local/state/robot-dispatch"),
    ],
)
def test_that_of_an_installed_package_is_never_beside_its_modules(tmp_path, environ, expected):
    found = stack_env.run_directory(environ, tmp_path)

    assert found == Path(expected.replace("CURRENT", str(Path.cwd())))
