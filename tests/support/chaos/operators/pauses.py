"""Pauses a type, a key or everything for some seconds."""

from __future__ import annotations

from support.chaos.operators.base import INSIST, Operator

#: What is paused; the key of a client bears its principal's name.
_WHATS = (
    "type:http.request", "type:echo", "type:chaos.walk", "type:chaos.walk", "key:robot-1", "key:robot-2", "key:local:crate-1",
    "principal:local", "all",
)  # fmt: skip


class Pauser(Operator):
    """Pauses, waits, resumes; one pause at a time, or two."""

    pause = (1.0, 4.0)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._paused: list[str] = []

    def step(self) -> None:
        """Pause something, and end it after some seconds: workers take two to notice."""
        for what in self.rng.sample(_WHATS, self.rng.choice([1, 1, 2])):
            self._paused.append(what)
            self.http.act("pauseTasks", "PUT", f"/v1/pauses/{what}", what, json={"reason": "chaos"})
        self.stop.wait(self.rng.uniform(1.5, 6))
        self.end()

    def end(self) -> None:
        """Resume whatever may be paused."""
        while self._paused:
            what = self._paused.pop()
            self.http.insist(INSIST, "resumeTasks", "DELETE", f"/v1/pauses/{what}", what)
