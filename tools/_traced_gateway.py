"""A checkout's gateway in this process, its calls recorded, and one echo task through it: prints the times as JSON.

The first task is not measured: it opens connections, loads scripts and imports what is imported late.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

from tools import call_recorder
from tools.private_stack import eventually

#: Seconds a task may take on a busy machine.
_PATIENCE = 90.0

#: Seconds after a task's end in which the worker acks its message.
_ACK = 1.0


def _post(client: Any) -> str:
    """Send a task; its status URL. The first requests wait for the gateway's connections."""

    def accepted() -> str | None:
        answer = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}})
        return answer.headers["Location"] if answer.status_code == 202 else None

    return eventually(accepted, _PATIENCE, "the gateway accepts a task")


def _succeeded(client: Any, url: str) -> None:
    eventually(lambda: client.get(url).get_json()["status"] == "SUCCESS", _PATIENCE, f"{url} succeeds")


def _measured(client: Any) -> dict[str, float]:
    """Send the task that counts; when it was sent, accepted and over."""
    sent = time.monotonic()
    url = _post(client)
    accepted = time.monotonic()
    _succeeded(client, url)
    time.sleep(_ACK)
    return {"sent": sent, "accepted": accepted, "over": time.monotonic()}


def main() -> None:
    """Send two tasks, with an idle window between them."""
    idle = float(sys.argv[1])
    call_recorder.install()
    app = importlib.import_module("app").create_app()
    client = app.test_client()
    _succeeded(client, _post(client))
    time.sleep(_ACK)  # the first task's ack is no background
    begun = time.monotonic()
    time.sleep(idle)
    print(json.dumps({"idle": begun, **_measured(client)}))
    app.extensions["close"]()


if __name__ == "__main__":
    main()
