"""Event streams of a deployed gateway: from every process, whichever worker made the hops."""

import json
import threading

import httpx
import pytest

from support.gateway_live import running_gateway
from support.ports import free_port
from support.worker import bench, running_worker

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def client(settings):
    with bench(settings), running_gateway(settings, free_port()) as (client, _, _):
        yield client


def accepted(client, **payload):
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x", **payload}})
    return answer.json()["taskId"]


def followed(base_url, task_id, **headers):
    """The hops of a whole stream, over a connection of its own."""
    with (
        httpx.Client(base_url=base_url, timeout=30, trust_env=False) as fresh,
        fresh.stream("GET", f"/v1/tasks/{task_id}/events", headers={**STREAM, **headers}) as answer,
    ):
        assert answer.status_code == 200
        return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")]


def test_every_process_streams_what_a_worker_does(client, settings):
    task_id = accepted(client, failTimes=1)
    streams: list[list[dict]] = []
    threads = [threading.Thread(target=lambda: streams.append(followed(client.base_url, task_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    with running_worker(settings):
        for thread in threads:
            thread.join(30)
    hops = client.get(f"/v1/tasks/{task_id}/events").json()

    assert streams == [hops] * 4
    assert [hop["kind"] for hop in hops] == [
        "accepted",
        "published",
        "started",
        "failed",
        "delayed",
        "started",
        "succeeded",
    ]
    assert followed(client.base_url, task_id, **{"Last-Event-ID": str(hops[3]["seq"])}) == hops[4:]
    seen = {**STREAM, "Last-Event-ID": str(hops[-1]["seq"])}
    assert client.get(f"/v1/tasks/{task_id}/events", headers=seen).status_code == 204


def test_streams_leave_threads_for_everybody_else(client):
    task_id = accepted(client)
    open_streams, refused = [], 0
    with httpx.Client(base_url=client.base_url, timeout=10, trust_env=False) as many:
        for _ in range(30):
            stream = many.send(many.build_request("GET", f"/v1/tasks/{task_id}/events", headers=STREAM), stream=True)
            refused += stream.status_code == 503
            open_streams.append(stream)
        alive = [client.get("/livez").elapsed.total_seconds() for _ in range(10)]
        posted = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}})
        for stream in open_streams:
            stream.close()

    assert refused >= 30 - 2 * 4  # two processes, a quarter of 16 threads each
    assert max(alive) < 1
    assert posted.status_code == 202
