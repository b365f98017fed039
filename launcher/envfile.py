"""The ``env`` file: settings, URLs and pids, one ``KEY=value`` a line, as a shell reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dispatch.config import stack_env
from launcher import files


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file atomically, readable by its owner only: URLs contain passwords.

    Args:
        path: the file.
        values: by key.
    """
    files.write(path, "".join(stack_env.line(key, value) for key, value in values.items()))


def read(path: Path) -> dict[str, str]:
    """The values by key; empty without the file.

    Args:
        path: the file.
    """
    try:
        return stack_env.parse(path.read_text())
    except FileNotFoundError:
        return {}
