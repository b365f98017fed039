"""A checkout of its own for the system under chaos: the product as it is, with the harness's task types beside its own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.stack import ROOT

#: What gateway, workers and launcher run from.
_PARTS = ("dispatch", "launcher", "tasks", "examples", "deploy")

#: The task types, by an engineer's way: a file in ``tasks/``.
TYPES = Path(__file__).parent / "types"


@contextlib.contextmanager
def checkout() -> Iterator[Path]:
    """A directory to start the launcher in; it is thrown away in the end."""
    with tempfile.TemporaryDirectory(prefix="robot-dispatch-checkout-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the servers' own users pass through it
        for part in _PARTS:
            shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("node_modules"))
        for file in (*ROOT.glob("*.py"), ROOT / "pyproject.toml"):
            shutil.copy2(file, directory)
        for file in TYPES.glob("*.py"):
            shutil.copy2(file, directory / "tasks")
        yield directory
