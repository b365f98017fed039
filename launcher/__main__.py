"""Command line: ``python -m launcher up|servers|down|status|restart``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from dispatch.cli import pipes
from dispatch.config import settings as configuration
from dispatch.config import stack_env
from dispatch.errors import ConfigurationError
from launcher import layout, procfs, status
from launcher.control import Stack
from launcher.errors import LaunchError
from launcher.rundir import RunDir


def main(argv: Sequence[str] | None = None, program: str = "python -m launcher") -> int:
    """Run a command.

    Args:
        argv: the command line without the program; the process's own by default.
        program: its name, for help.

    Returns:
        The exit status.
    """
    args = _parser(program).parse_args(argv)
    try:
        procfs.require()
        environ = {name: value for name, value in os.environ.items() if name not in layout.URL_KEYS}
        configuration.load(environ)
        run = RunDir.at(stack_env.run_directory(environ, layout.ROOT))
        return _command(args, Stack(run, _print), environ)
    except (LaunchError, ConfigurationError) as exc:
        print(exc, file=sys.stderr)
        return 1
    except PermissionError as exc:
        print(f"the run directory belongs to another user: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        left = f"{layout.command('status')}, {layout.command('down')}"
        print(f"\ninterrupted; started processes keep running: {left}", file=sys.stderr)
        return 130


def _command(args: argparse.Namespace, stack: Stack, environ: dict[str, str]) -> int:
    if args.verb == "status":
        lines, code = status.as_json(stack) if args.json else status.report(stack)
        print("\n".join(lines))
        return code
    if args.verb == "down":
        stack.down()
    elif args.verb == "restart":
        stack.restart(_names(args.names), environ)
    else:
        stack.up(layout.SERVERS if args.verb == "servers" else _names(args.only), environ)
        print("\n".join(status.addresses(stack)))
    return 0


def _parser(program: str = "python -m launcher") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Starts, supervises and stops the system on this machine. Reads DISPATCH_* settings from the environment.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start the processes that are not running, wait until they are ready")
    up.add_argument(
        "--only", default="all", metavar="NAMES", help=f"comma-separated: {', '.join((*layout.GROUPS, *layout.ALL))}"
    )
    verbs.add_parser("servers", help="start RabbitMQ and Redis only")
    verbs.add_parser("down", help="stop all processes")
    shown = verbs.add_parser(
        "status", help="processes, addresses, restarts; exit 0, 1 (not all ready) or 3 (nothing runs)"
    )
    shown.add_argument("--json", action="store_true", help="for programs: docs/reference/cli.md has the keys")
    restart = verbs.add_parser("restart", help="restart processes with the settings they were started with")
    restart.add_argument("names", nargs="?", default="apps", help="comma-separated (default: worker, gateway, flower)")
    return parser


def _names(text: str) -> tuple[str, ...]:
    """Process names from the command line, in start order."""
    requested = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in requested if name not in layout.GROUPS and name not in layout.ALL]:
        raise LaunchError(
            f"no such process: {', '.join(unknown)}; there are {', '.join((*layout.GROUPS, *layout.ALL))}"
        )
    selected = {part for name in requested for part in layout.GROUPS.get(name, (name,))}
    return tuple(name for name in layout.ALL if name in selected)


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    with pipes.quiet():
        code = main()
    sys.exit(code)
