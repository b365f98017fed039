import threading
import time

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.gateway.admission import readiness
from dispatch.gateway.admission import readiness as health
from dispatch.gateway.contract import models
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
    assert models.ReadyModel.model_validate(answer.json).checks["store"].ok


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
    """Answers whatever it is told to."""

    def __init__(self, answer):
        self.answer = answer
        self.failure = self.refusal = ""

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
    [(True, True, None), (False, True, "depth"), (True, False, "accepts no messages"), (False, False, "depth")],
)
def test_the_broker_must_answer_and_take_messages(probe, ready, wrong):
    found = readiness.broker_check(Asked(probe), Asked(ready))()

    assert (wrong is None) == (found is None)
    assert wrong is None or wrong in found


def test_the_reason_is_added_where_it_is_known_without_the_host():
    refused = Asked(answer=False)
    refused.failure = refused.refusal = (
        "its certificate was refused: Hostname mismatch, certificate is not valid for 'h1'"
    )
    half = Asked(answer=True)
    half.refusal = refused.refusal
    half.ready = lambda: False
    store = StoreUnavailable()
    store.refusal = "its certificate was refused: certificate has expired"

    assert readiness.broker_check(refused, refused)().endswith(
        "in time: its certificate was refused: Hostname mismatch"
    )
    assert readiness.broker_check(half, half)().endswith("alarm): its certificate was refused: Hostname mismatch")
    assert readiness.store_check(Asked(store))().endswith(
        "in time: its certificate was refused: certificate has expired"
    )


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (StoreHealth(noeviction=True), None),
        (StoreHealth(noeviction=False), "noeviction"),
        (StoreUnavailable("hunter2"), "did not respond"),
    ],
)
def test_redis_must_answer_and_evict_nothing(answer, wrong):
    found = readiness.store_check(Asked(answer))()

    assert (wrong is None) == (found is None)
    assert wrong is None or (wrong in found and "hunter2" not in found)
