"""A reader that goes before all is written ends a command silently; another broken pipe is an error as before."""

import contextlib
import os
import sys

import click
import pytest
from click.testing import CliRunner

from dispatch.cli import output, pipes
from support.cases import each


@contextlib.contextmanager
def unread():
    """Standard output is a pipe without a reader; in the test itself, since pytest sets it anew for each phase."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream, contextlib.redirect_stdout(stream):
        yield stream


def test_a_command_ends_silently_when_its_output_has_no_reader():
    with unread() as stream:
        with pytest.raises(SystemExit) as ended, pipes.quiet():
            stream.write("one line\n")
        stream.flush()  # as the interpreter does at its end

    assert ended.value.code == 141


def test_a_reported_command_does_so_too(capsys):
    @output.reported("dlq")
    def command():
        sys.stdout.write("x" * 100_000)
        sys.stdout.flush()

    with unread(), pytest.raises(SystemExit) as ended:
        command()

    assert (ended.value.code, capsys.readouterr().err) == (141, "")


def test_a_servers_broken_pipe_is_an_error_of_the_command():
    @click.command()
    @output.reported("dlq")
    def command():
        raise BrokenPipeError(32, "Broken pipe")

    done = CliRunner().invoke(command)
    with pytest.raises(BrokenPipeError), pipes.quiet():
        raise BrokenPipeError

    assert (done.exit_code, done.stderr) == (2, "dlq: [Errno 32] Broken pipe\n")


def test_a_file_has_a_reader(monkeypatch, tmp_path):
    assert not pipes.reader_gone()
    with (tmp_path / "out").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert not pipes.reader_gone()


class Terminal:
    """Standard input with one answer."""

    def __init__(self, answer):
        self.answer = answer

    def isatty(self):
        return True

    def readline(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def ended_with(command):
    """Its exit code."""
    try:
        command()
    except SystemExit as ended:
        return ended.code
    return 0


@each(
    ("answer", "code"),
    [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1), ("yikes\n", 1), (KeyboardInterrupt(), 130)],
)
def test_only_a_yes_goes_on_and_ctrl_c_is_130_without_a_traceback(answer, code, monkeypatch):
    @output.reported("dlq")
    def command():
        output.confirm("3 dead letters. Redrive?")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdin", Terminal(answer))
        assert ended_with(command) == code
