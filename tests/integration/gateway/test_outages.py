"""RabbitMQ or Redis away or silent: every request is answered within 5 s, truthfully."""

import contextlib
import time

import pytest
from kombu import Connection

import topology
from dispatch.broker import provision
from dispatch.config.settings import ANSWER_WITHIN
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.proxy import DOWN, Proxy
from support.waiting import eventually

BODY = {"type": "echo", "payload": {"message": "hi"}}


@contextlib.contextmanager
def within(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.fixture
def broker(settings):
    with Connection(settings.broker("admin")) as connection:
        provision.declare(connection, topology.broker_map(settings), settings)
    with Proxy.to(settings.broker("gateway")) as proxy:
        yield proxy


@pytest.fixture
def redis(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy:
        yield proxy


def through(settings, broker=None, redis=None):
    changes = {"gateway_broker_url": broker and broker.url, "redis_url": redis and redis.url}
    return type(settings).model_validate(
        {**{name: getattr(settings, name) for name in settings.model_fields_set}, **{name: url for name, url in changes.items() if url}}
    )  # fmt: skip


def test_a_broker_that_refuses_is_503_and_readyz_names_it(settings, broker):
    with gateway(through(settings, broker)) as client:
        broker.refuse()
        broker.cut()
        # A request that meets the cut itself is in doubt: publish-unconfirmed.
        body = eventually(lambda: _down(client), 5)
        for _ in range(3):
            with within(ANSWER_WITHIN):
                answer = client.post("/v1/tasks", json=BODY)
            problem(answer, 503, "broker-unavailable")
            assert answer.headers["Retry-After"]
        assert [name for name, check in body["checks"].items() if not check["ok"]] == ["broker"]
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/tasks").status_code == 200

        broker.admit()
        eventually(lambda: client.post("/v1/tasks", json=BODY).status_code == 202, 15)
        eventually(lambda: client.get("/readyz").status_code == 200, 10)


def _down(client):
    answer = client.get("/readyz")
    return problem(answer, 503, "broker-unavailable") if answer.status_code == 503 else None


def test_a_broker_that_falls_silent_is_in_doubt_once_and_then_503(settings, broker):
    with gateway(through(settings, broker)) as client:
        broker.hold(DOWN)
        with within(ANSWER_WITHIN):
            doubtful = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "abc"})
        body = problem(doubtful, 503, "publish-unconfirmed")
        with within(ANSWER_WITHIN):
            problem(client.post("/v1/tasks", json=BODY), 503, "broker-unavailable")
        with within(1.5):
            eventually(lambda: _down(client), 1.5)

        broker.release()
        again = eventually(lambda: _accepted(client, "abc"), 20)
        assert again.json["taskId"] == body["taskId"]


def test_what_is_in_doubt_stays_so_while_the_broker_refuses_its_repeat_and_keeps_its_id(settings, broker):
    with gateway(through(settings, broker)) as client:

        def repeated():
            return client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": "abc"})

        broker.hold(DOWN)
        body = problem(repeated(), 503, "publish-unconfirmed")
        broker.refuse()
        broker.cut()
        eventually(lambda: _down(client), 10)
        refused = eventually(
            lambda: (answer := repeated()).status_code == 503 and answer, 10, "not in progress any more"
        )
        broker.release()
        broker.admit()
        again = eventually(lambda: _accepted(client, "abc"), 20)

    assert problem(refused, 503, "publish-unconfirmed")["taskId"] == body["taskId"]
    assert again.json["taskId"] == body["taskId"]


def _accepted(client, key):
    answer = client.post("/v1/tasks", json=BODY, headers={"Idempotency-Key": key})
    return answer if answer.status_code == 202 else None


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_redis_away_is_503_for_every_operation(settings, redis, how):
    with gateway(through(settings, redis=redis)) as client:
        task = client.post("/v1/tasks", json=BODY).json
        if how == "refuses":
            redis.refuse()
            redis.cut()
        else:
            redis.hold()
        for method, path, options in (
            ("POST", "/v1/tasks", {"json": BODY}),
            ("POST", "/v1/tasks", {"json": BODY, "headers": {"Idempotency-Key": "abc"}}),
            ("GET", task["statusUrl"], {"headers": {"Prefer": "wait=20"}}),
            ("GET", task["eventsUrl"], {}),
            ("GET", "/v1/dead-letters", {}),
            ("POST", f"/v1/dead-letters/{task['taskId']}/redrive", {}),
            ("DELETE", f"/v1/dead-letters/{task['taskId']}", {}),
        ):
            time.sleep(0.6)  # past the breaker, so that each operation meets the outage itself
            with within(ANSWER_WITHIN):
                answer = client.open(path, method=method, **options)
            assert (method, path, problem(answer, 503, "store-unavailable")["status"]) == (method, path, 503)
        ready = client.get("/readyz")
        assert not problem(ready, 503, "store-unavailable")["checks"]["store"]["ok"]

        redis.admit()
        redis.release()
        eventually(lambda: client.get(task["statusUrl"]).status_code == 200, 10)
        eventually(lambda: client.get("/readyz").status_code == 200, 10)


def test_redis_that_falls_silent_during_a_long_poll_ends_it(settings, redis):
    with gateway(through(settings, redis=redis)) as client:
        task = client.post("/v1/tasks", json=BODY).json
        redis.hold(DOWN)
        with within(ANSWER_WITHIN):
            problem(client.get(task["statusUrl"], headers={"Prefer": "wait=20"}), 503, "store-unavailable")


def test_a_start_without_servers_answers_and_recovers(settings, broker, redis):
    broker.refuse()
    redis.refuse()
    with gateway(through(settings, broker, redis), ready=False) as client:
        with within(ANSWER_WITHIN):
            problem(client.post("/v1/tasks", json=BODY), 503, "store-unavailable")
        assert client.get("/livez").status_code == 200

        redis.admit()
        broker.admit()
        eventually(lambda: client.post("/v1/tasks", json=BODY).status_code == 202, 20)
