"""A gateway process that serves many requests dies with all of them under way."""

import contextlib
import threading

import httpx
import psutil
import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.gateway_live import running_gateway
from support.ports import free_port
from support.proxy import DOWN, Proxy
from support.waiting import eventually
from support.worker import running_worker

KEYS = [f"k-{number}" for number in range(12)]
TASK = {"type": "echo", "payload": {"message": "x"}}


def submit(http, key):
    return http.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": key})


def _all_at_once(url):
    """Submissions on a connection each, none of which has its answer: the threads end with the gateway."""

    def one(key):
        with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            submit(http, key)

    threads = [threading.Thread(target=one, args=(key,)) for key in KEYS]
    for thread in threads:
        thread.start()
    return threads


def _kill(pid):
    """The master first, which would replace a worker."""
    master = psutil.Process(pid)
    family = [master, *master.children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family[1:], timeout=10)


def _accepted(http, key):
    """The task of a repeated key, once its first request counts as cut off."""
    answer = submit(http, key)
    return answer.json()["taskId"] if answer.status_code == 202 else None


def test_a_gateway_dies_after_a_write_of_many_messages_and_before_their_confirms(bench):
    """RabbitMQ has the messages, no record is marked, no client has an answer: each repeated key is one task that runs once."""
    with Proxy.to(bench.settings.broker("gateway")) as proxy:
        behind = bench.settings.model_copy(update={"broker_url": SecretStr(proxy.url)})
        with running_gateway(behind, free_port()) as (http, process, _):
            proxy.hold(DOWN)
            threads = _all_at_once(str(http.base_url))
            eventually(lambda: bench.depth(names.WORK_QUEUE) >= 2, 20, "messages of several requests are in the queue")
            _kill(process.pid)
            for thread in threads:
                thread.join(30)
    states = {record.state for record in bench.store.list().items}
    with running_gateway(bench.settings, free_port()) as (http, _, _):
        task_ids = [eventually(lambda key=key: _accepted(http, key), 30, "the key is adopted or free") for key in KEYS]
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id, 40) for task_id in task_ids]
        bench.drained()

    assert State.SCHEDULED in states  # it died with the confirms missing
    assert State.QUEUED not in states
    assert len(set(task_ids)) == len(KEYS)
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert [bench.runs(task_id) for task_id in task_ids] == [1] * len(KEYS)


BATCH = {"items": [{**TASK, "idempotencyKey": f"b-{number}"} for number in range(60)]}


def _sent(url):
    with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        http.post("/v1/tasks/batch", json=BATCH)


@pytest.mark.parametrize("point", ["submit.recorded", "submit.published", "submit.marked"])
def test_a_gateway_dies_with_a_batch_under_way_and_each_item_is_what_a_single_request_would_be(
    bench, monkeypatch, tmp_path, point
):
    """Some items are accepted, some published, some recorded; the repeated batch is one task for each, and each runs once."""
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
        with running_gateway(bench.settings, free_port()) as (http, process, _):
            _sent(str(http.base_url))
            eventually((tmp_path / "died-here").exists, 10, "the gateway died there")
            _kill(process.pid)
    with running_gateway(bench.settings, free_port()) as (http, _, _):
        tasks = eventually(lambda: _whole(http), 40, "each key is adopted, replayed or free")
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id, 40) for task_id in tasks]
        bench.drained()

    assert len(set(tasks)) == len(BATCH["items"])
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {bench.runs(task_id) for task_id in tasks} == {1}


def _whole(http):
    verdicts = http.post("/v1/tasks/batch", json=BATCH).json()["items"]
    return all(one["task"] for one in verdicts) and [one["task"]["taskId"] for one in verdicts]
