"""The ``env`` file: URLs and pids, one ``KEY=value`` a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher import files


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file atomically, readable by its owner only: URLs contain passwords.

    Args:
        path: the file.
        values: by key.
    """
    files.write(path, "".join(f"{key}={value}\n" for key, value in values.items()))


def read(path: Path) -> dict[str, str]:
    """The values by key; empty without the file.

    Args:
        path: the file.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
