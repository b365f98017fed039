"""What a handler returns when its task is to wait: neither a slot nor a process waits with it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pydantic


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """End this step, and have the handler called again later.

    The wait is a message in the broker's delay levels; it survives what a task survives. The next step begins with the whole
    ladder before it, so a step that succeeds forgives the failures before it.

    Args:
        seconds: until the next step; at least 1, and up to 10 % longer.
        state: what the next step finds in ``ctx.state``: of the model that the type declares (``@task(..., state=Model)``),
            at most 16 KiB as JSON. None: nothing.
        until: the names of signals that end the wait early; one that has come since the task began, and has ended no wait yet,
            ends it at once.
        same_attempt: the next step belongs to this attempt: failures before the wait still count. For work that the handler only
            follows and that may fail each time, which would otherwise never reach the end of the ladder.
    """

    seconds: float
    state: pydantic.BaseModel | None = None
    until: tuple[str, ...] = ()
    same_attempt: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Signal:
    """A signal that a client, or another system, has sent to the task."""

    name: str
    payload: Mapping[str, Any]  #: JSON as its sender chose it: validate it
    at: dt.datetime  #: when it was recorded, UTC
