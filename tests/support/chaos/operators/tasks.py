"""Verbs on one task that has not ended."""

from __future__ import annotations

import heapq
import time

from support.chaos.operators.base import Operator

#: Seconds for which a signal is repeated.
_REPEATED = 30.0


#: Kinds of tasks that have something to undo, or a key to give back.
_BEGUN = frozenset({"undone", "wait", "robot", "parent"})


class Canceller(Operator):
    """Cancels: what was accepted a moment ago, and what waits, runs or is held."""

    pause = (0.4, 1.6)

    def step(self) -> None:
        """Cancel one; sometimes twice."""
        state = self.rng.choice(["", "", "begun", "QUEUED", "DELAYED", "WAITING", "RUNNING", "HELD", "RETRY_WAIT"])
        listed = self.items(f"/v1/tasks?state={state}&limit=30") if state.isupper() else []
        known = [each["taskId"] for each in listed if each["taskId"] in self.notes.accepted]
        known = known or self.notes.recent(6, _BEGUN if state == "begun" else ())
        if not known:
            return
        task_id = self.rng.choice(known)
        for _ in range(self.rng.choice([1, 1, 2])):
            self.http.act("cancelTask", "POST", f"/v1/tasks/{task_id}/cancel", task_id)


class Hurrier(Operator):
    """Ends waits on rungs and in the delay levels."""

    pause = (0.5, 2.0)

    def step(self) -> None:
        """Hurry one that waits."""
        listed = self.items(f"/v1/tasks?state={self.rng.choice(['RETRY_WAIT', 'DELAYED'])}&limit=30")
        known = [each["taskId"] for each in listed if each["taskId"] in self.notes.accepted]
        if known:
            task_id = self.rng.choice(known)
            self.http.act("retryTaskNow", "POST", f"/v1/tasks/{task_id}/retry-now", task_id)


class Signaller(Operator):
    """Signals each task that waits for it, some before they wait and some twice."""

    pause = (0.05, 0.2)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._seen = 0
        self._due: list[tuple[float, str, int, float]] = []

    def step(self) -> None:
        """Signal those whose time has come."""
        now = time.monotonic()
        fresh = list(self.notes.accepted.items())[self._seen :]
        self._seen += len(fresh)
        for task_id, order in fresh:
            for number in range(order.payload.get("steps", 0) if order.kind == "signalled" else 0):
                if self.rng.random() < 0.8:  # the others' waits end at their time
                    heapq.heappush(self._due, (now + self.rng.uniform(0, 5), task_id, number, now + _REPEATED))
        while self._due and self._due[0][0] <= now:
            self._signal(*heapq.heappop(self._due))

    def end(self) -> None:
        """Send what is left, at once."""
        while self._due:
            _, task_id, number, until = heapq.heappop(self._due)
            self._signal(0.0, task_id, number, until)

    def _signal(self, _: float, task_id: str, number: int, until: float) -> None:
        signal = f"s{number}"
        done = self.http.act(
            "signalTask", "POST", f"/v1/tasks/{task_id}/signals/go", task_id, {"id": signal},
            json={"id": signal}, headers={"Idempotency-Key": f"{task_id}-{signal}"},
        )  # fmt: skip
        now = time.monotonic()
        if ((done.possible and not done.done) or self.rng.random() < 0.2) and now < until:
            heapq.heappush(self._due, (now + 0.7, task_id, number, until))
