"""Event streams of a deployed gateway: from every process, whichever worker made the hops."""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis
from pydantic import SecretStr

from dispatch.gateway.views import event_stream as streams
from support.gateway_live import running_gateway
from support.ports import free_port
from support.proxy import Proxy
from support.waiting import eventually
from support.worker import open_bench, running_worker

STREAM = {"Accept": "text/event-stream"}

#: Streams of one principal in each of two processes.
SHARE = 4


@pytest.fixture(scope="module")
def client(module_settings):
    own = module_settings.model_copy(update={"http_waits_per_principal": SHARE})
    with open_bench(module_settings), running_gateway(own, free_port()) as (client, _, _):
        yield client


def accepted(client, **payload):
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x", **payload}})
    return answer.json()["taskId"]


def followers(settings, task_id):
    """Gateway processes that wait for a task."""
    channel = f"{settings.redis_prefix}task:{{{task_id}}}"
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as direct:
        return direct.pubsub_numsub(channel)[0][1]


def followed(base_url, task_id, *, returns=0, **headers):
    """The hops of a whole stream, over a connection of its own; of one that comes back after Retry-After, so many times."""
    with (
        httpx.Client(base_url=base_url, timeout=30, trust_env=False) as fresh,
        fresh.stream("GET", f"/v1/tasks/{task_id}/events", headers={**STREAM, **headers}) as answer,
    ):
        if not returns or answer.status_code != 503:
            assert answer.status_code == 200
            return [
                json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")
            ]
    time.sleep(int(answer.headers["Retry-After"]))
    return followed(base_url, task_id, returns=returns - 1, **headers)


def test_every_process_streams_what_a_worker_does(client, module_settings):
    task_id = accepted(client, failTimes=1)
    streams: list[list[dict]] = []
    threads = [threading.Thread(target=lambda: streams.append(followed(client.base_url, task_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    with running_worker(module_settings, abrupt=True):
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


def test_streams_of_one_principal_leave_room_for_others(client):
    task_id = accepted(client)
    open_streams, refused = [], 0
    with httpx.Client(base_url=client.base_url, timeout=10, trust_env=False) as many:
        for _ in range(30):
            stream = many.send(many.build_request("GET", f"/v1/tasks/{task_id}/events", headers=STREAM), stream=True)
            refused += stream.status_code == 503
            assert stream.status_code == 200 or stream.headers["Retry-After"] == "5"
            open_streams.append(stream)
        alive = [client.get("/livez").elapsed.total_seconds() for _ in range(10)]
        posted = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}})
        for stream in open_streams:
            stream.close()

    assert refused >= 30 - 2 * SHARE
    assert max(alive) < 1
    assert posted.status_code == 202


def waiting(client):
    """How many wait in all processes of a gateway."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("robot_http_waiting{"))


def opened(many, task_id):
    """A stream from whichever process takes the connection."""
    return many.send(many.build_request("GET", f"/v1/tasks/{task_id}/events", headers=STREAM), stream=True)


def test_clients_that_hang_up_leave_their_places_while_nothing_happens(settings):
    one = settings.model_copy(update={"http_workers": 1, "http_waits": SHARE})
    with open_bench(settings), running_gateway(one, free_port()) as (client, _, _):
        task_id = accepted(client)

        def places():
            with httpx.Client(base_url=client.base_url, timeout=10, trust_env=False) as many:
                return sum(opened(many, task_id).status_code == 200 for _ in range(6))

        assert places() == SHARE
        eventually(lambda: places() == SHARE, streams.HEARTBEAT - 3, "they are free before anything is written to them")


def test_a_gateway_that_must_end_ends_its_streams_and_long_polls_first(settings):
    with open_bench(settings), running_gateway(settings, free_port()) as (client, process, log):
        task_id = accepted(client)
        etag = client.get(f"/v1/tasks/{task_id}").headers["ETag"]
        with ThreadPoolExecutor(2) as pool:
            stream = pool.submit(followed, client.base_url, task_id)
            poll = pool.submit(
                httpx.get,
                f"{client.base_url}/v1/tasks/{task_id}",
                headers={"Prefer": "wait=20", "If-None-Match": etag},
                timeout=30,
                trust_env=False,
            )
            eventually(lambda: waiting(client) == 2, 10, "both wait")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            took = time.monotonic() - began

    assert took < 15  # of the 25 that gunicorn would give them
    assert [hop["kind"] for hop in stream.result()] == ["accepted", "published"]
    assert poll.result().status_code == 304
    assert "Traceback" not in log.read_text()


def test_a_stream_ends_when_redis_goes_and_goes_on_when_the_client_comes_back(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy, open_bench(settings):
        away = settings.model_copy(update={"redis_url": SecretStr(proxy.url)})
        with running_gateway(away, free_port()) as (client, _, log), ThreadPoolExecutor(1) as pool:
            task_id = accepted(client)
            stream = pool.submit(followed, client.base_url, task_id)
            eventually(lambda: followers(settings, task_id) == 1, 10, "it has sent what happened, and waits")
            proxy.refuse()
            proxy.cut()
            seen = stream.result(timeout=20)
            refused = client.get(f"/v1/tasks/{task_id}/events", headers=STREAM)
            proxy.admit()
            with running_worker(settings, abrupt=True):  # each process finds by itself that Redis is there again
                rest = followed(client.base_url, task_id, returns=5, **{"Last-Event-ID": str(seen[-1]["seq"])})

    assert [hop["kind"] for hop in seen] == ["accepted", "published"]
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/store-unavailable")
    assert [hop["kind"] for hop in rest] == ["started", "succeeded"]
    assert "Traceback" not in log.read_text()
