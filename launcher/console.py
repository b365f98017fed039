"""``dispatch``: what an installed package is used by. API keys, and a stack on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import click

from dispatch import __version__
from dispatch.cli import main as ours
from launcher import layout

#: Exit status where something that a command needs is missing.
_MISSING = 1

_SETUP = layout.ROOT / "launcher" / "setup-servers.sh"

_UNPARSED = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group()
@click.version_option(__version__, package_name="robot-dispatch", prog_name="robot-dispatch")
def main() -> None:
    """Robot Dispatch: a stack on this machine, and commands that need no running system."""


def _launch(verb: str, words: Sequence[str]) -> int:
    """A verb of the launcher, which parses its own options."""
    from launcher.__main__ import main as launch  # noqa: PLC0415 - `dispatch keys` starts without it

    return launch([verb, *words], "dispatch")


def _up(verb: str, words: Sequence[str]) -> int:
    """As `make up` does: first bring the servers that are missing, where that can be done."""
    if "-h" not in words and "--help" not in words and (failed := _bring()):
        return failed
    return _launch(verb, words)


def _bring() -> int:
    """Install RabbitMQ and Redis where they are missing and that can be done; the exit status."""
    if shutil.which("bash") is None:
        return 0  # the launcher reports what is missing
    return subprocess.run(["bash", str(_SETUP)], check=False).returncode


def _demo(_: str, __: Sequence[str]) -> int:
    if importlib.util.find_spec("robot_dispatch_client") is None:
        click.echo("the demo uses the Python client: pip install robot-dispatch-client", err=True)
        return _MISSING
    if failed := _bring():
        return failed
    return subprocess.run([sys.executable, "-m", "examples.demo"], env=os.environ, check=False).returncode


def _command(name: str, act: Callable[[str, Sequence[str]], int], help: str) -> click.Command:
    def run(words: tuple[str, ...]) -> None:
        sys.exit(act(name, words))

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS]")
    return click.Command(
        name, callback=run, params=[words], help=help, add_help_option=False, context_settings=_UNPARSED
    )


for _each in ours.main.commands.values():
    main.add_command(_each)
main.add_command(_command("up", _up, "Start RabbitMQ, Redis, gateway, worker, Flower and the simulator."))
main.add_command(_command("down", _launch, "Stop all processes."))
main.add_command(_command("status", _launch, "Processes, addresses, restarts."))
main.add_command(_command("restart", _launch, "Restart gateway, worker and Flower, or those named."))
main.add_command(_command("demo", _demo, "The whole system and four tasks' way through it, on a compressed ladder."))
