"""Has tasks run again and again."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

from support.chaos.operators.base import INSIST, Operator
from support.chaos.rules.schedules import KEPT

#: Seconds between due times.
PERIODS = (3, 5)


class Scheduler(Operator):
    """Creates two schedules that stay as they are, and one that is paused, resumed and run at any time; deletes all of them."""

    pause = (1.0, 3.0)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._made: list[str] = []

    def step(self) -> None:
        """Create the next one, or move the one that is moved."""
        if len(self._made) < 3:
            self._create(len(self._made))
            return
        name = self._made[2]
        verb, path = self.rng.choice(
            [
                ("pauseSchedule", "pause"),
                ("resumeSchedule", "resume"),
                ("resumeSchedule", "resume"),
                ("runScheduleNow", "run-now"),
            ]
        )
        headers = {"Idempotency-Key": f"run-{self.notes.number()}"} if path == "run-now" else {}
        self.http.act(verb, "POST", f"/v1/schedules/{name}/{path}", name, headers=headers)

    def _create(self, number: int) -> None:
        name, period = f"chaos-{number}", PERIODS[number % 2]
        wish = {"label": f"schedule-{number}"}
        payload = {"method": "POST", "url": self.book.effects, "json": wish, "timeoutSeconds": 10}
        body: dict[str, Any] = {
            "type": "http.request", "payload": payload, "cron": f"*/{period} * * * * *",
            "overlap": "skip" if number == 1 else "queue", "catchUp": self.rng.choice(["last", "none"]),
        }  # fmt: skip
        asked = {name: value for name, value in body.items() if name != "payload"}
        done = self.http.insist(INSIST, "putSchedule", "PUT", f"/v1/schedules/{name}", name, json=body, asked=asked)
        if done.possible:
            self._made.append(name)

    def end(self) -> None:
        """Wait until each has run again, look at it, delete it."""
        for name in self._made:
            view = self._settled(name)
            if view is not None:
                self.notes.schedules.append({**view, "seenAt": time.time()})
            self.http.insist(INSIST, "deleteSchedule", "DELETE", f"/v1/schedules/{name}", name)

    def _settled(self, name: str) -> dict[str, Any] | None:
        """The schedule once a due time of the time after the faults has had its task, or it is paused."""
        pace, began, view = threading.Event(), time.time(), None
        while time.time() < began + KEPT:
            answer, body = self.http.call("GET", f"/v1/schedules/{name}")
            if answer.status == 404:
                return None
            if answer.status == 200:
                view, last = body, (body["lastRun"] or {}).get("at")
                if view["paused"] or (last and dt.datetime.fromisoformat(last).timestamp() > began):
                    return view
            pace.wait(0.5)
        return view
