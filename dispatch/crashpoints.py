"""Named crash points at the boundaries of the protocol, for the fault tests.

Off unless ``ROBOT_DISPATCH_FAULT`` is set, to ``<point>=<file>``: the first process that reaches the point creates the
file and kills itself by SIGKILL; the file keeps others from doing so. With ``<point>@STOP=<file>`` it stops there until
SIGCONT. Off, a point is one call that returns.
"""

from __future__ import annotations

import os
import signal

#: Not a ``DISPATCH_*`` setting: for tests only.
VARIABLE = "ROBOT_DISPATCH_FAULT"

#: Every point, in protocol order; each has a line in the crash-window table of docs/explanation/guarantees.md.
POINTS = (
    "submit.key-reserved",
    "submit.recorded",
    "submit.published",
    "submit.marked",
    "child.reserved",
    "child.submitted",
    "webhook.submitted",
    "run.delivered",
    "claim.answered",
    "run.claimed",
    "run.handled",
    "run.reported",
    "run.completed",
    "ack.succeeded",
    "ack.waiting",
    "route.decided",
    "route.published",
    "route.handed-over",
    "hold.decided",
    "hold.published",
    "hold.handed-over",
    "key.taken",
    "key.held",
    "key.ended",
    "key.released",
    "rate.called",
    "rate.sent",
    "lease.renewing",
    "recorder.recorded",
    "redrive.recorded",
    "redrive.published",
    "redrive.finished",
    "send-now.recorded",
    "send-now.published",
    "send-now.handed-over",
    "cancel.recorded",
    "job.recorded",
    "sweep.recorded",
    "sweep.published",
    "tick.waited",
    "tick.fired",
    "tick.noted",
)

_TARGET, _, _FILE = os.environ.get(VARIABLE, "").partition("=")
_POINT, _, _ACTION = _TARGET.partition("@")


def _nothing(_point: str) -> None:
    """No fault is configured."""


def _crash_at(point: str) -> None:
    if point != _POINT:
        return
    try:
        os.close(os.open(_FILE, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if _ACTION == "STOP" else signal.SIGKILL)


#: Called at each boundary.
reach = _crash_at if _POINT else _nothing
