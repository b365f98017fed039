"""The HTTP layer on a real RabbitMQ and a real Redis."""

import contextlib
import threading
import time

import pytest
from kombu import Connection

import topology
from dispatch.broker import provision
from dispatch.broker.depth import ack_rate
from dispatch.broker.management import Management
from dispatch.gateway.admission.depth import DepthReader
from dispatch.gateway.contract import response_models
from dispatch.protocol import names
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import running_worker

BODY = {"type": "echo", "payload": {"message": "hi"}}


@pytest.fixture
def client(settings):
    with gateway(settings) as made:
        yield made


def channel(settings):
    return Connection(settings.broker("admin"))


def depth(settings, queue=names.WORK_QUEUE):
    with channel(settings) as connection:
        return connection.default_channel.queue_declare(queue, passive=True).message_count


def test_a_202_means_recorded_and_queued(client, settings):
    answer = client.post("/v1/tasks", json=BODY, headers={"X-Request-Id": "rq-7"})
    shown = client.get(answer.json["statusUrl"])

    assert answer.status_code == 202
    assert depth(settings) == 1
    assert {name: shown.json[name] for name in ("state", "queue", "requestId", "traceId")} == {
        "state": "QUEUED", "queue": "robot.task.q", "requestId": "rq-7", "traceId": answer.json["traceId"],
    }  # fmt: skip
    response_models.TaskModel.model_validate(shown.json)
    assert shown.headers["ETag"] == f'"{answer.json["revision"]}"'
    assert [hop["kind"] for hop in client.get(answer.json["eventsUrl"]).json] == ["accepted", "published"]
    assert [item["taskId"] for item in client.get("/v1/tasks?state=QUEUED").json["items"]] == [answer.json["taskId"]]


def test_a_repeated_key_yields_the_same_task_and_one_message(client, settings):
    headers = {"Idempotency-Key": "abc"}
    first = client.post("/v1/tasks", json=BODY, headers=headers)
    again = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": '"abc"'})
    other = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "ho"}}, headers=headers)

    assert (again.status_code, again.json["taskId"]) == (202, first.json["taskId"])
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    problem(other, 422, "idempotency-key-reused")
    assert depth(settings) == 1


def test_the_same_key_at_once_is_accepted_once(settings):
    with gateway(settings) as client:
        answers = []

        def submit():
            mine = client.application.test_client()
            answers.append(mine.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "race"}))

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    accepted = {answer.json["taskId"] for answer in answers if answer.status_code == 202}
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len(accepted) == 1
    assert depth(settings) == 1


def test_a_listing_is_paged_newest_first(client):
    ids = [client.post("/v1/tasks", json=BODY).json["taskId"] for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/v1/tasks?limit=2{cursor and f'&cursor={cursor}'}").json
        found += [item["taskId"] for item in page["items"]]
        cursor = page["next"]

    assert found == ids[::-1]
    problem(client.get("/v1/tasks?cursor=nonsense"), 422, "validation-error")


def test_a_long_poll_returns_with_the_change(client, settings):
    task = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": "hi", "sleepSeconds": 1}}).json
    etag, seen, waits = f'"{task["revision"]}"', [], []
    with running_worker(settings, abrupt=True):
        while not seen or seen[-1]["status"] not in {"SUCCESS", "FAIL"}:
            answer = client.get(task["statusUrl"], headers={"Prefer": "wait=20", "If-None-Match": etag})
            assert answer.headers["Preference-Applied"] == "wait=20"
            waits.append(answer.status_code)
            etag = answer.headers["ETag"]
            seen.append(answer.json)

    assert set(waits) == {200}
    assert seen[-1]["result"]["message"] == "hi"
    assert "Retry-After" not in answer.headers
    assert any(step["progress"] for step in seen)


def test_a_long_poll_without_a_change_ends_on_time(client):
    task = client.post("/v1/tasks", json=BODY).json
    began = time.monotonic()
    answer = client.get(task["statusUrl"], headers={"Prefer": "wait=1", "If-None-Match": f'"{task["revision"]}"'})

    assert answer.status_code == 304
    assert 0.9 < time.monotonic() - began < 5


def test_a_dead_letter_is_shown_redriven_and_discarded(client, settings):
    body = {"type": "echo", "payload": {"message": "no", "permanent": True}}
    with running_worker(settings, abrupt=True):
        task = client.post("/v1/tasks", json=body).json
        url = f"/v1/dead-letters/{task['taskId']}"
        dead_letter = eventually(lambda: client.get(url).json if client.get(url).status_code == 200 else None, 10)
        redriven = client.post(f"{url}/redrive")
        eventually(lambda: client.get(url).status_code == 200 and client.get(url).json["cycle"] == 1, 10)
        listed = client.get("/v1/dead-letters?type=echo&errorType=echo-refused").json["items"]
        counted = client.post("/v1/dead-letters/redrive", json={"filter": {"type": "echo"}, "dryRun": True})
        discarded = client.delete(url)

    assert response_models.DeadLetterDetailModel.model_validate(dead_letter).payload["message"] == "no"
    assert (dead_letter["deadReason"], dead_letter["principal"], dead_letter["error"]["type"]) == (
        "permanent",
        "local",
        "echo-refused",
    )
    assert (redriven.status_code, redriven.json["cycle"], redriven.json["taskId"]) == (202, 1, task["taskId"])
    assert [item["taskId"] for item in listed] == [task["taskId"]]
    assert (counted.status_code, counted.json["matched"]) == (200, 1)
    assert discarded.status_code == 204
    problem(client.get(url), 404, "task-not-found")
    assert client.get(task["statusUrl"]).json["status"] == "FAIL"


def test_only_a_dead_letter_can_be_redriven(client):
    task = client.post("/v1/tasks", json=BODY).json
    url = f"/v1/dead-letters/{task['taskId']}"

    assert problem(client.post(f"{url}/redrive"), 409, "task-not-dead")["state"] == "QUEUED"
    problem(client.get(url), 404, "task-not-found")
    problem(client.delete(url), 404, "task-not-found")
    problem(client.post("/v1/dead-letters/unknown/redrive"), 404, "task-not-found")


def test_a_bulk_redrive_is_done_by_the_workers(client, settings):
    body = {"type": "echo", "payload": {"message": "no", "permanent": True}}
    with running_worker(settings, abrupt=True):
        ids = {client.post("/v1/tasks", json=body).json["taskId"] for _ in range(3)}
        eventually(lambda: len(client.get("/v1/dead-letters").json["items"]) == 3, 15)
        answer = client.post("/v1/dead-letters/redrive", json={"ratePerSecond": 100})
        again = eventually(
            lambda: [one for one in client.get("/v1/dead-letters").json["items"] if one["cycle"] == 1][2:], 30
        )
        end, begin = eventually(lambda: client.get("/v1/audit").json["items"][1:] and _audit(client), 10)

    assert (begin["phase"], begin["client"], begin["details"]["matched"]) == ("begin", "127.0.0.1", 3)
    assert (end["phase"], end["result"], end["details"]) == ("end", "ok", {"sent": 3})
    assert (answer.status_code, answer.json["matched"]) == (202, 3)
    assert again[0]["taskId"] in ids


def _audit(client):
    return response_models.AuditListModel.model_validate(client.get("/v1/audit").json).model_dump()["items"]


def test_the_guard_shuts_over_the_limit_and_answers_when_to_come_back(settings):
    with gateway(settings.model_copy(update={"queue_depth_limit": 2})) as client:
        for number in range(3):
            assert client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": str(number)}).status_code == 202
        refused = eventually(lambda: _refused(client), 5)
        repeated = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "0"})

        assert 1 <= int(refused.headers["Retry-After"]) <= 300
        assert (repeated.status_code, repeated.headers["Idempotent-Replayed"]) == (202, "true")

        with channel(settings) as connection:
            connection.default_channel.queue_purge(names.WORK_QUEUE)
        eventually(lambda: client.post("/v1/tasks", json=BODY).status_code == 202, 5)


def _refused(client):
    answer = client.post("/v1/tasks", json=BODY)
    return answer if answer.status_code == 429 and problem(answer, 429, "queue-depth-exceeded") else None


def test_after_an_idle_time_a_burst_is_not_kept_away_for_the_longest_time(settings):
    small = settings.model_copy(update={"queue_depth_limit": 100})
    waits = []

    def admitted():
        answer = client.post("/v1/tasks", json=BODY)
        waits.extend([int(answer.headers["Retry-After"])] if answer.status_code == 429 else [])
        return answer.status_code == 202

    with gateway(small) as client, _consumer(small) as taking:
        assert admitted()
        # RabbitMQ's statistics know an acknowledgement and have forgotten its rate: it is 0, and stays so in a burst.
        eventually(lambda: ack_rate(small) == 0.0, 30, "the rate of an idle queue is 0")
        taking.clear()
        eventually(lambda: not all(admitted() for _ in range(200)), 30, "the queue is full")
        taking.set()
        eventually(admitted, 60, "it is not full any more")

    assert max(waits) < 60


@contextlib.contextmanager
def _consumer(settings):
    """Takes ten messages a second while the event that it returns is set."""
    taking, over = threading.Event(), threading.Event()
    taking.set()

    def consume():
        with channel(settings) as connection:
            while not over.wait(0.1):
                message = taking.is_set() and connection.default_channel.basic_get(names.WORK_QUEUE)
                if message:
                    connection.default_channel.basic_ack(message.delivery_tag)

    thread = threading.Thread(target=consume)
    thread.start()
    try:
        yield taking
    finally:
        over.set()
        thread.join()


def test_the_brokers_own_limit_is_the_same_429(settings, monkeypatch):
    monkeypatch.setattr(DepthReader, "start", lambda _: None)  # the guard never learns the depth
    small = settings.model_copy(update={"queue_depth_limit": 2})
    accepted = []

    def post(key=None):
        answer = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": key} if key else {})
        accepted.extend([answer.json["taskId"]] if answer.status_code == 202 else [])
        return answer

    def refused():
        answer = post()
        return answer if answer.status_code == 429 else None

    with gateway(small, ready=False) as client:
        eventually(lambda: post().status_code == 202, 10)
        first, keyed = eventually(refused, 10), post("k")
        with channel(settings) as connection:
            connection.default_channel.queue_purge(names.WORK_QUEUE)
        again = eventually(lambda: post("k").status_code == 202, 10, "the key of what was refused is free")
        listed = [item["taskId"] for item in client.get("/v1/tasks?limit=200").json["items"]]

        problem(first, 429, "queue-depth-exceeded")
        problem(keyed, 429, "queue-depth-exceeded")
        assert int(first.headers["Retry-After"]) >= 1
        assert again
        assert sorted(listed) == sorted(accepted)  # what was refused is no failed task


def test_an_integer_may_be_written_as_every_json_number_that_is_one(client):
    def failing(text):
        body = f'{{"type": "echo", "payload": {{"message": "x", "failTimes": {text}}}}}'
        return client.post("/v1/tasks", data=body, headers={"Content-Type": "application/json"})

    accepted = [failing(text).status_code for text in ("1.0", "1e1", "-0.0", "0.0")]
    refused = [failing(text).json["errors"][0]["pointer"] for text in ("1.5", "1e300", "9007199254740994.0")]

    assert accepted == [202] * 4
    assert refused == ["/payload/failTimes"] * 3
    answer = client.post(
        "/v1/dead-letters/redrive", data='{"dryRun": true, "limit": 5.0}', headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json["limit"]) == (200, 5)


def test_without_a_binding_the_task_is_refused_and_its_key_is_free(client, settings):
    with channel(settings) as connection:
        connection.default_channel.queue_unbind(names.WORK_QUEUE, names.TASK_EXCHANGE, f"{names.ROUTING_KEY}.#")
        headers = {"Idempotency-Key": "abc"}
        answer = client.post("/v1/tasks", json=BODY, headers=headers)
        problem(answer, 503, "publish-unroutable")
        assert answer.headers["Retry-After"] == "10"

        provision.declare(connection, topology.broker_map(settings), settings)
    again = client.post("/v1/tasks", json=BODY, headers=headers)
    assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (202, None)


def test_queues_are_shown_as_they_are(client, settings):
    queues = eventually(lambda: client.get("/v1/queues").json.get("items"), 10)

    assert [response_models.QueueModel.model_validate(queue).role for queue in queues].count("work") == 1
    assert client.get("/v1/queues/robot.task.dlq").json["role"] == "dead-letters"
    with Management(settings) as management:
        assert {queue["name"] for queue in management.queue_stats()} == {queue["name"] for queue in queues}
