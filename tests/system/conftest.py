"""One whole system for the suite, as ``make up`` starts it; nothing of ours is imported."""

import dataclasses
from collections.abc import Iterator

import httpx
import pytest

from support import stack as stacks
from support.waiting import eventually

SETTINGS = {
    "ladder": "1m=1,5m=2,30m=3",
    "lease": 3,
    "lease_park": 1,
    "robot_poll": 0.2,
    "sweep_interval": 1,
    "soft_shutdown": 3,
    "queue_depth_limit": 60,
}


@dataclasses.dataclass(frozen=True)
class System:
    """A running system and a client of its API."""

    stack: stacks.Stack
    http: httpx.Client

    def submit(self, type_: str, payload: dict, **headers: str) -> httpx.Response:
        """POST /v1/tasks; header names with ``_`` for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/v1/tasks", json={"type": type_, "payload": payload}, headers=named)

    def accepted(self, type_: str, payload: dict, **headers: str) -> str:
        """The id of a task that was accepted, sooner or later: as a client does, it tries again."""

        def tried() -> str | None:
            try:
                answer = self.submit(type_, payload, **headers)
            except httpx.TransportError:  # the gateway died: its outcome is unknown, so only a key makes this safe
                assert "Idempotency_Key" in headers
                return None
            return answer.json()["taskId"] if answer.status_code == 202 else None

        return eventually(tried, 40, "the task is accepted")

    def task(self, task_id: str) -> dict:
        """GET /v1/tasks/{taskId}."""
        return self.http.get(f"/v1/tasks/{task_id}").raise_for_status().json()

    def ended(self, task_id: str, timeout: float = 40) -> dict:
        """The task, once it is SUCCESS or FAIL."""

        def terminal() -> dict | None:
            task = self.look(task_id)
            return task if task.get("status") in {"SUCCESS", "FAIL"} else None

        return eventually(terminal, timeout, lambda: f"{task_id} is terminal; it is {self.look(task_id)}")

    def look(self, task_id: str) -> dict:
        """The task as the gateway shows it at the moment; empty without an answer."""
        try:
            answer = self.http.get(f"/v1/tasks/{task_id}")
        except httpx.TransportError:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def ready(self) -> bool:
        """Whether the gateway answers that it is."""
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def hops(self, task_id: str) -> list[dict]:
        """GET /v1/tasks/{taskId}/events."""
        return self.http.get(f"/v1/tasks/{task_id}/events").raise_for_status().json()


@pytest.fixture(scope="session")
def running_system() -> Iterator[System]:
    """The system of this test process."""
    with (
        stacks.running(**SETTINGS) as stack,
        httpx.Client(base_url=stack.env["DISPATCH_HTTP_URL"], timeout=30) as http,
    ):
        yield System(stack, http)


@pytest.fixture
def system(running_system) -> System:
    """The system, ready."""
    eventually(running_system.ready, 60, running_system.stack.status)
    return running_system
