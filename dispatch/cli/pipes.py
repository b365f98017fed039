"""A reader that goes before all is written, as in ``… | head``: a command ends silently then."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import NoReturn

NO_READER = 141  #: exit code, as a shell has it (128 + SIGPIPE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """End the process quietly when its output has no reader (any more), within the block or at its end.

    Raises:
        BrokenPipeError: another pipe or socket broke.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        if not reader_gone():
            raise
        leave()


def reader_gone() -> bool:
    """Whether standard output has no reader: a broken pipe may also be a server's."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # it is no file, or closed
        return False
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def leave() -> NoReturn:
    """End the process: what is still buffered goes nowhere, and the interpreter's last flush doesn't fail."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
    raise SystemExit(NO_READER)
