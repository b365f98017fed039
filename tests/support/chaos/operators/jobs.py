"""Uses a verb on everything that a filter matches."""

from __future__ import annotations

from typing import Any

from support.chaos.operators.base import Operator

#: Filters of each verb. None of them matches what waits for a schedule's due time, or poison, some of which has the type echo.
_FILTERS: dict[str, tuple[dict[str, Any], ...]] = {
    "cancel": (
        {"type": "chaos.walk", "state": "WAITING"}, {"type": "http.request", "state": "DELAYED"}, {"type": "chaos.undone"},
        {"type": "echo", "state": "QUEUED"}, {"labels": {"group": "a"}}, {"type": "chaos.walk", "state": "HELD"},
    ),
    "retry-now": ({"state": "RETRY_WAIT"}, {"type": "http.request", "state": "DELAYED"}, {"labels": {"group": "b"}}),
    "redrive": ({"type": "http.request"}, {"type": "chaos.walk"}, {"labels": {"group": "c"}}),
    "discard": ({"type": "http.request", "labels": {"group": "b"}}, {"labels": {"group": "d"}}),
}  # fmt: skip


class JobStarter(Operator):
    """Starts jobs, and stops some."""

    pause = (2.0, 5.0)

    def step(self) -> None:
        """A job, or a dry run of one."""
        verb = self.rng.choice(list(_FILTERS))
        body = {
            "verb": verb, "filter": self.rng.choice(_FILTERS[verb]), "limit": self.rng.randint(1, 12),
            "ratePerSecond": self.rng.choice([2, 10, 100]), "dryRun": self.rng.random() < 0.15,
            "canary": verb in {"redrive", "retry-now"} and self.rng.random() < 0.3,
        }  # fmt: skip
        done = self.http.act("startJob", "POST", "/v1/jobs", verb, body, json=body)
        job_id = done.answer.get("jobId")
        if job_id and self.rng.random() < 0.25:
            self.stop.wait(self.rng.uniform(0, 1.5))
            self.http.act("stopJob", "POST", f"/v1/jobs/{job_id}/stop", job_id)
