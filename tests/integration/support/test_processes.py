"""A forked process is what its command names, with its own environment, and has its libraries already."""

import importlib
import os
import subprocess
import sys

import pytest

from support import processes


def look():
    there = set(sys.modules)
    libraries = importlib.import_module("support.libraries")  # imports them, where that was not done before the fork
    wanted = {*libraries.NAMES, *libraries.OWN, libraries.__name__}
    reads_variables = {
        "dispatch.config.settings",
        "dispatch.crashpoints",
        "dispatch.telemetry.metrics",
        "celery_app",
        "app",
    }
    sys.stdout.write(f"{sorted(wanted - there)} {sorted(reads_variables & there)}")
    sys.stdout.flush()


def late():
    sys.stdout.write(os.environ.get("LATE", "unset"))
    sys.stdout.flush()


def leave():
    sys.exit(3)


def wait():
    sys.stdin.close()
    subprocess.run(["sleep", "60"], check=False)


@pytest.fixture
def output(tmp_path):
    return processes.Output(tmp_path / "out", tmp_path / "errors")


def test_it_has_every_library_and_nothing_of_ours_that_reads_variables(output):
    assert processes.Forked(look, output=output).wait(30) == 0
    assert output.out.read_text() == "[] []"


def test_a_variable_of_an_earlier_test_is_not_inherited(output, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("LATE", "1")
        assert processes.Forked(late, output=output).wait(30) == 0
    assert processes.Forked(late, output=output).wait(30) == 0

    assert output.out.read_text() == "1unset"


def test_a_process_that_needs_a_fresh_interpreter_is_executed(output):
    process = processes.start("json.tool", ["/dev/null"], environ={processes.FRESH: "1"}, output=output)

    assert isinstance(process, subprocess.Popen)
    assert process.wait(30) == 1


def test_a_command_is_run_with_its_words_and_variables_only(monkeypatch):
    monkeypatch.setenv("DISPATCH_LADDER", "never read")
    done = processes.run("json.tool", ["--indent", "1", "/dev/null"], environ={})
    shown = processes.run("celery", ["--version"], environ={"COLUMNS": "80"})

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Expecting value")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_how_it_ended_is_known(output):
    assert processes.Forked(leave, output=output).wait(30) == 3

    process = processes.Forked(wait, output=output)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(30) == process.poll() == process.returncode == -9


def test_a_command_that_takes_too_long_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run("http.server", ["--bind", "127.0.0.1", "0"], environ={}, timeout=0.5)
