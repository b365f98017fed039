"""Small files, replaced atomically, and logs of bounded size."""

from __future__ import annotations

import os
import shutil
from collections import deque
from pathlib import Path

MAX_LOG = 20 * 1024 * 1024  #: bytes of a log before it is rotated while its process runs


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file atomically.

    Args:
        path: the file.
        text: its new content.
        mode: its permissions.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.chmod(mode)
    draft.replace(path)


def rotate(path: Path) -> None:
    """Rename a log to ``.1``."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))


def rotate_in_place(path: Path, limit: int = MAX_LOG) -> None:
    """Copy a log over the limit to ``.1`` and truncate it; its writer has it open in append mode.

    Args:
        path: the log.
        limit: maximum size in bytes.
    """
    if path.exists() and path.stat().st_size > limit:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)


def tail(path: Path, lines: int = 15) -> list[str]:
    """The last lines of a log, within its last 64 KiB."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        text = file.read().decode(errors="replace")
    return list(deque(text.splitlines(), lines))
