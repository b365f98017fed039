"""P1, P2, P7: a deploy ends gateways and workers under load; who was being served is served, the others come again."""

import threading
import time

import httpx

from dispatch.protocol.record import State
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually
from support.worker import running_worker

CLIENTS, EACH = 8, 30


class Client(threading.Thread):
    """Submits one task after the other, and each again with its key until it has an answer."""

    def __init__(self, number, port):
        super().__init__(daemon=True)
        self.number, self.port = number, port
        self.accepted, self.unanswered = {}, []

    def run(self):
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False) as http:
            for each in range(EACH):
                key = f"{self.number}-{each}"
                while key not in self.accepted:
                    self._submit(http, key)

    def _submit(self, http, key):
        try:
            answer = http.post(
                "/v1/tasks", json={"type": "echo", "payload": {"message": key}}, headers={"Idempotency-Key": key}
            )
        except httpx.TransportError as exc:
            self.unanswered.append((key, type(exc).__name__))
            time.sleep(0.1)
            return
        if answer.status_code == 202:
            self.accepted[key] = answer.json()["taskId"]
        else:
            self.unanswered.append((key, answer.status_code))
            time.sleep(0.2)


def test_a_gateways_deploy_under_load_answers_whom_it_serves_and_loses_nothing(bench):
    port = free_port()
    clients = [Client(number, port) for number in range(CLIENTS)]
    waiting = []

    def poll(url):
        waiting.append(httpx.get(url, headers={"Prefer": "wait=4"}, timeout=30, trust_env=False).status_code)

    with running_gateway(bench.settings, port) as (client, process, _):
        url = client.base_url.join(
            client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}}).json()["statusUrl"]
        )
        for each in clients:
            each.start()
        poller = threading.Thread(target=poll, args=(url,))
        poller.start()
        eventually(lambda: sum(len(each.accepted) for each in clients) > CLIENTS * EACH // 4, 60, "it is under load")
        began = time.monotonic()
        process.terminate()
        process.wait(60)
        seconds = time.monotonic() - began
    known = {record.task_id for record in _every(bench)}
    unanswered = eventually(
        lambda: len(left := known - _answered(clients)) <= 1 and left, 10, "accepted, and its client has no answer"
    )
    with running_gateway(bench.settings, port), running_worker(bench.settings, abrupt=True):
        for each in [*clients, poller]:
            each.join(90)
        ids = {task_id for each in clients for task_id in each.accepted.values()}
        states = {bench.finished(task_id, 90).state for task_id in ids}

    assert process.returncode == 0
    assert seconds < 30 + 15
    assert waiting == [200]
    assert unanswered == {url.path.rpartition("/")[2]}
    assert len(ids) == CLIENTS * EACH == len(_every(bench)) - 1
    assert states == {State.SUCCEEDED}
    assert {bench.runs(task_id) for task_id in ids} == {1}


def _answered(clients):
    return {task_id for each in clients for task_id in list(each.accepted.values())}


def _every(bench):
    page = bench.store.list(limit=200)
    found = list(page.items)
    while page.next:
        page = bench.store.list(limit=200, cursor=page.next)
        found += page.items
    return found
