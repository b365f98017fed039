"""How long runs of each task type take, so that short ones may share one write to a process. Pure."""

from __future__ import annotations

#: Seconds of work that a process may be given at once. A run of a type that takes longer, or is new, comes alone.
AHEAD = 0.005

#: Seconds that a run costs a process beside its handler.
OWN = 0.000_25

#: What a run leaves of the longest time before it: after some 350 short runs one of a second is forgotten.
_FADES = 0.985


class Pace:
    """The longest time that runs of each type have taken lately."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def ran(self, type: str, seconds: float) -> None:
        """A run has ended, well or not.

        Args:
            type: its task type; one of those that this worker knows.
            seconds: how long it took.
        """
        self._longest[type] = max(seconds, self._longest.get(type, AHEAD) * _FADES)

    def seconds(self, type: str) -> float:
        """How long a run of a type will take, as far as the last ones are a guide."""
        return OWN + self._longest.get(type, AHEAD)
