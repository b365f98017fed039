"""The console while servers are away: what is missing is shown as a state, the rest stays, and each response comes in its time."""

import re
import time

import pytest
from pydantic import SecretStr

from dispatch.config.api_keys import SCOPES
from dispatch.config.settings import ANSWER_WITHIN
from support.console import PEPPER, key
from support.gateway_live import gateway
from support.proxy import DOWN, Proxy
from support.waiting import eventually

ADMIN, ENTRY = key("night-shift", *SCOPES)
PAGES = ("/ops", "/ops/tasks", "/ops/queues", "/ops/keys", "/ops/workers")


@pytest.fixture
def redis(settings):
    with Proxy.to(settings.redis_url.get_secret_value()) as proxy:
        yield proxy


def signed_in(client):
    page = client.get("/ops/sign-in")
    token = re.search(r'name="token" value="([0-9a-f]{64})"', page.text)[1]
    assert client.post("/ops/sign-in", data={"key": ADMIN, "token": token}).status_code == 303
    return re.search(r'name="token" value="([0-9a-f]{64})"', client.get("/ops").text)[1]


def changed(settings, **urls):
    more = {"api_keys": (ENTRY,), "api_key_pepper": SecretStr(PEPPER), **urls}
    return type(settings).model_validate({name: getattr(settings, name) for name in settings.model_fields_set} | more)


def shown(client, path):
    began = time.monotonic()
    answer = client.get(path)
    assert time.monotonic() - began < ANSWER_WITHIN, path
    assert answer.status_code == 200, (path, answer.text)
    return answer.text


@pytest.mark.parametrize("way", ["refused", "silent"])
def test_with_redis_away_every_page_shows_it_within_its_time(settings, redis, way):
    with gateway(changed(settings, redis_url=redis.url)) as client:
        token = signed_in(client)
        if way == "silent":
            redis.hold(DOWN)
        else:
            redis.refuse()
            redis.cut()
        for path in ("/ops/tasks", "/ops/keys"):
            assert "The task store is not available" in shown(client, path)
        for path in PAGES:
            shown(client, path)
        eventually(lambda: "Redis" in client.get("/ops").text.partition("<main")[2], 15)
        task = client.get("/ops/tasks/01a21dd2-ce3c-760e-882d-35a36374b982")
        assert (task.status_code, "not available" in task.text) == (503, True)
        assert client.post("/ops/pauses/new", data={"token": token, "what": "all", "reason": "x"}).status_code == 503
        redis.release()
        redis.admit()

        eventually(lambda: "No task yet" in client.get("/ops/tasks").text, 15)


def test_with_rabbitmq_away_the_map_shows_it_and_tasks_stay(settings):
    with (
        Proxy.to(settings.management_url.get_secret_value()) as management,
        gateway(changed(settings, management_url=management.url)) as client,
    ):
        signed_in(client)
        management.refuse()
        management.cut()
        eventually(lambda: "did not respond" in shown(client, "/ops/queues"), 20)
        assert "did not respond" in shown(client, "/ops")
        assert "No task yet" in shown(client, "/ops/tasks")
        management.admit()

        eventually(lambda: "robot.task.q" in shown(client, "/ops/queues"), 20)
