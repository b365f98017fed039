"""Named points at the boundaries of the protocol, where a test may kill the process exactly there.

Off unless ``ROBOT_DISPATCH_FAULT`` is set, to ``<point>=<file>``: the first process that reaches the point makes the
file and dies by SIGKILL, so that no second one does; with ``<point>@STOP=<file>`` it stops there until SIGCONT. Off, a
point is one call that returns.
"""

from __future__ import annotations

import os
import signal

#: Not a ``DISPATCH_*`` setting: nobody should find it among them.
VARIABLE = "ROBOT_DISPATCH_FAULT"

#: Every point, in the order of a task's way; the crash-window table in docs/explanation/guarantees.md has a line each.
POINTS = (
    "submit.key-reserved",
    "submit.recorded",
    "submit.published",
    "submit.marked",
    "run.delivered",
    "run.claimed",
    "run.handled",
    "run.completed",
    "ack.succeeded",
    "route.decided",
    "route.published",
    "route.handed-over",
    "lease.renewing",
    "recorder.recorded",
    "redrive.recorded",
    "redrive.published",
    "redrive.finished",
    "sweep.recorded",
    "sweep.published",
)

_WHERE, _, _FILE = os.environ.get(VARIABLE, "").partition("=")
_POINT, _, _HOW = _WHERE.partition("@")


def _nothing(_point: str) -> None:
    """No fault is asked for."""


def _perhaps_die(point: str) -> None:
    if point != _POINT:
        return
    try:
        os.close(os.open(_FILE, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if _HOW == "STOP" else signal.SIGKILL)


#: Marks a boundary.
reach = _perhaps_die if _POINT else _nothing
