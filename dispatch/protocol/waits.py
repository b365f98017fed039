"""A wait between two steps of a task, as a child reports it: plain values that survive pickling. Pure."""

from __future__ import annotations

import dataclasses
import re

#: Bytes of a state as JSON in ASCII: it travels in a header, which may not fill the headers' frame.
MAX_STATE = 16_384

#: The share by which a wait may be longer: fewer hops from level to level.
SLACK = 0.1

#: Signals that a task may have, and bytes of each one's payload as JSON.
MAX_SIGNALS, MAX_SIGNAL = 100, 16_384

#: Signals that one wait may be for, and what a signal's name is.
MAX_SIGNALS_WAITED_FOR = 16
_SIGNAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True, slots=True)
class AskedWait:
    """What a step asked for."""

    seconds: float
    until: tuple[str, ...] = ()  #: the signals that end it early
    state: str | None = None  #: for the next step, as JSON
    same_attempt: bool = False  #: the next step does not begin a new ladder


def is_signal(name: object) -> bool:
    """Whether a signal can have this name."""
    return isinstance(name, str) and _SIGNAL.fullmatch(name) is not None
