import threading
import time

import pytest

from dispatch.errors import StoreUnavailable, Trouble
from dispatch.gateway.admission import readiness
from dispatch.gateway.admission import readiness as health
from dispatch.gateway.contract import response_models
from dispatch.store.tasks import StoreHealth
from support.gateway_fakes import World, problem


def world(broker=lambda: None, store=lambda: None):
    return World(checks={"broker": broker, "store": store})


def test_alive_touches_nothing():
    def touched():
        raise AssertionError

    answer = world(touched, touched).client().get("/livez")

    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def test_ready_when_everything_answers():
    answer = world().client().get("/readyz")

    assert answer.status_code == 200
    assert response_models.ReadyModel.model_validate(answer.json).checks["store"].ok


@pytest.mark.parametrize(
    ("broker", "store", "slug", "down"),
    [
        (lambda: "gone", lambda: None, "broker-unavailable", ["broker"]),
        (lambda: None, lambda: "gone", "store-unavailable", ["store"]),
        (lambda: "gone", lambda: "gone", "store-unavailable", ["broker", "store"]),
    ],
)
def test_503_names_what_is_down(broker, store, slug, down):
    answer = world(broker, store).client().get("/readyz")
    body = problem(answer, 503, slug)

    assert down == [name for name, check in body["checks"].items() if not check["ok"]]
    assert answer.headers["Retry-After"] == "1"


def test_a_check_that_fails_in_an_unforeseen_way_is_down_without_its_text():
    def fail():
        raise RuntimeError("hunter2")

    answer = world(fail).client().get("/readyz")

    problem(answer, 503, "broker-unavailable")
    assert "hunter2" not in answer.text


def test_a_check_that_hangs_is_down_within_its_time_and_is_not_piled_up(monkeypatch):
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.2)
    monkeypatch.setattr(health, "CACHED", 0.0)
    release, started = threading.Event(), []

    def hang():
        started.append(1)
        release.wait(10)

    client = world(hang).client()
    began = time.monotonic()
    for _ in range(5):
        assert "no response" in problem(client.get("/readyz"), 503, "broker-unavailable")["checks"]["broker"]["detail"]

    assert time.monotonic() - began < 2
    assert started == [1]
    release.set()


def test_the_verdict_is_remembered_for_a_moment():
    asked = []
    client = world(lambda: asked.append(1)).client()
    for _ in range(5):
        client.get("/readyz")

    assert asked == [1]


class Asked:
    """Gives the answer that it was made with."""

    def __init__(self, answer):
        self.answer = answer
        self.trouble = None

    def probe(self, timeout):
        assert timeout <= 0.5
        return self.answer

    def ready(self):
        return self.answer

    def ping(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("probe", "ready", "wrong"),
    [(True, True, None), (False, True, "depth"), (True, False, "RabbitMQ: it accepts no"), (False, False, "depth")],
)
def test_the_broker_must_answer_and_take_messages(probe, ready, wrong):
    found = readiness.broker_check(Asked(probe), Asked(ready))()

    assert (wrong is None) == (found is None)
    assert wrong is None or wrong in found


def test_anyone_reads_the_kind_of_trouble_and_neither_address_nor_user_nor_the_servers_words():
    def asked(server):
        answer = Asked(answer=False)
        answer.trouble = Trouble(server, "it does not accept this user and password", "ada@h1:5672/v", "hunter2")
        return answer

    half = asked("RabbitMQ")
    half.probe = lambda _: True

    assert readiness.broker_check(asked("RabbitMQ"), asked("RabbitMQ"))() == readiness.broker_check(half, half)()
    assert readiness.broker_check(half, half)() == "RabbitMQ: it does not accept this user and password"
    assert readiness.store_check(Asked(StoreUnavailable(trouble=asked("Redis").trouble)))() == (
        "Redis: it does not accept this user and password"
    )


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (StoreHealth(noeviction=True), None),
        (StoreHealth(noeviction=False), "noeviction"),
        (StoreHealth(noeviction=True, full=True), "Redis is full"),
        (StoreUnavailable("hunter2"), "did not answer"),
    ],
)
def test_redis_must_answer_and_evict_nothing(answer, wrong):
    found = readiness.store_check(Asked(answer))()

    assert (wrong is None) == (found is None)
    assert wrong is None or (wrong in found and "hunter2" not in found)
