"""Records which functions of the product are called, on which thread, and when.

One file per process, appended to as the process goes, so that it survives any kind of ending; a forked child writes
its own. A function that is called again and again is written once a tenth of a second.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import CodeType, FrameType
from typing import Any

from tools import source_tree

#: The environment variables with the checkout and the directory of a process's record.
ROOT, DIRECTORY = "TRACED_ROOT", "TRACED_DIRECTORY"

#: Seconds within which a call that repeats is written once.
_PERIOD = 0.1


@dataclasses.dataclass(frozen=True)
class Call:
    """One line of a record."""

    at: float  #: seconds of the monotonic clock, which all processes share
    thread: str
    path: str  #: of the file, relative to the checkout
    function: str


class Recorder:
    """A profiler that writes calls down.

    Args:
        root: the checkout; calls of other code are not written.
        directory: where the records go.
    """

    def __init__(self, root: Path, directory: Path) -> None:
        self._root = root
        self._directory = directory
        self._known: dict[int, tuple[CodeType, str | None]] = {}
        self._seen: set[tuple[int, int]] = set()
        self._period = 0.0

    def install(self) -> None:
        """Record this thread, every later one, and those of forked children."""
        os.register_at_fork(after_in_child=self._seen.clear)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call" or (label := self._label(frame.f_code)) is None:
            return
        now = time.monotonic()
        if now - self._period > _PERIOD:
            self._period = now
            self._seen.clear()
        call = threading.get_ident(), id(frame.f_code)
        if call not in self._seen:
            self._seen.add(call)
            self._write(f"{now}\t{call[0]}\t{label}\n")

    def _label(self, code: CodeType) -> str | None:
        found = self._known.get(id(code))
        if found is None:  # the code object is kept, or its id might be another's later
            found = self._known[id(code)] = code, self._new_label(code)
        return found[1]

    def _new_label(self, code: CodeType) -> str | None:
        if not code.co_flags & inspect.CO_OPTIMIZED:
            return None  # the body of a module or a class, executed by an import
        path = Path(code.co_filename)
        if not path.is_relative_to(self._root):
            return None
        relative = PurePosixPath(path.relative_to(self._root))
        return f"{relative}\t{code.co_qualname}@{code.co_firstlineno}" if source_tree.is_product(relative) else None

    def _write(self, line: str) -> None:
        # Opened each time: a pool child closes descriptors that it does not know.
        with (self._directory / f"{os.getpid()}.calls").open("a") as record:
            record.write(line)


def install() -> None:
    """Record this process as its environment configures it."""
    Recorder(Path(os.environ[ROOT]), Path(os.environ[DIRECTORY])).install()


def records(directory: Path) -> Iterator[tuple[int, list[Call]]]:
    """The records in a directory: pid and calls of each process.

    Args:
        directory: where they are.
    """
    for path in sorted(directory.glob("*.calls")):
        lines = (line.split("\t") for line in path.read_text().splitlines())
        yield int(path.stem), [Call(float(at), thread, file, function) for at, thread, file, function in lines]
