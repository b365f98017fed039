"""The ``env`` file of a running stack (``.run/env``), found by commands in a shell that names no server.

One ``KEY=value`` a line, quoted as a shell needs it. The file holds passwords: one that another user could have written is
not read.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from dispatch.config.settings import PREFIX

#: How an operator takes over the settings of a running stack.
SOURCE = "set -a; . .run/env; set +a"

#: Set by the launcher in every process that it starts: these have their settings.
MARKER = "ROBOT_DISPATCH_RUN"

_RUN_DIR = f"{PREFIX}RUN_DIR"
_SERVERS = ("BROKER_URL", "MANAGEMENT_URL", "REDIS_URL")


def run_directory(environ: Mapping[str, str], root: Path) -> Path:
    """The run directory of the stack that commands are about.

    Args:
        environ: may set it; a relative one is relative to a checkout, or else to the current directory.
        root: the directory with our root files.

    Returns:
        By default ``.run`` in a checkout, and of an installed package one for each user (XDG: state).
    """
    checkout = (root / "pyproject.toml").is_file()
    given = environ.get(_RUN_DIR, "").strip()
    if given or checkout:
        return (root if checkout else Path.cwd()) / Path(given or ".run").expanduser()
    state = environ.get("XDG_STATE_HOME", "")
    if not Path(state).is_absolute():  # a relative one is invalid, by the XDG base directory specification
        state = str(Path(environ.get("HOME") or Path.cwd()) / ".local" / "state")
    return Path(state) / "robot-dispatch"


def line(key: str, value: str) -> str:
    """A line of the file."""
    return f"{key}={shlex.quote(value) if value else ''}\n"


def parse(text: str) -> dict[str, str]:
    """The values by key.

    Args:
        text: the file's.
    """
    pairs = (one.partition("=") for one in text.splitlines() if "=" in one)
    return {key: "".join(shlex.split(value)) for key, _, value in pairs}


def names_servers(environ: Mapping[str, str]) -> bool:
    """Whether an environment has the address of RabbitMQ or Redis."""
    return any(name.startswith(PREFIX) and name.endswith(_SERVERS) and environ[name].strip() for name in environ)


def adopt(environ: MutableMapping[str, str], root: Path) -> list[str]:
    """Take over the settings of a running stack, where an environment names no server.

    Args:
        environ: changed in place; what it sets itself takes precedence.
        root: the directory with our root files; see `run_directory`.

    Returns:
        What the operator should know, a line each: whose settings are used, or that this shell's are of an earlier stack.
    """
    if MARKER in environ:
        return []
    path = run_directory(environ, root) / "env"
    try:
        status, text = path.stat(), path.read_text()
    except (OSError, UnicodeDecodeError):
        return []
    found = {name: value for name, value in parse(text).items() if name.startswith(PREFIX)}
    differing = sorted(name for name in found if _differ(environ.get(name, ""), found[name]))
    if names_servers(environ):
        same = environ.get(f"{PREFIX}BROKER_URL") == found.get(f"{PREFIX}BROKER_URL")
        note = f"not as in the running stack: {', '.join(differing)} (it has its settings in {path}: {SOURCE})"
        return [note] if same and differing else []
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return [f"{path} is not read: another user may write it"]
    environ.update({name: value for name, value in found.items() if name not in differing and value})
    but = f", but for {', '.join(differing)} of this shell" if differing else ""
    return [f"settings of the running stack, {path}{but}"]


def _differ(own: str, found: str) -> bool:
    """Whether a shell sets a value, and another one; blanks are insignificant in lists."""
    return bool(own.strip()) and "".join(own.split()) != "".join(found.split())
