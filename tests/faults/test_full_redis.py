"""Redis's memory is full: what was accepted goes on and makes room, what is new is refused, and readiness shows it."""

import contextlib

import pydantic
import pytest

from dispatch.deadletters.bulk import BulkRedrive
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.record import State
from support.gateway_live import gateway
from support.redises import single
from support.waiting import eventually
from support.worker import Bench, running_worker

SIZE = 100_000
DEAD = {"message": "x" * SIZE}  # more than the type takes: permanent


@pytest.fixture
def own(settings):
    """A bench whose Redis is its own, and a client of that Redis."""
    with single() as server, server.client() as client:
        url = pydantic.SecretStr(server.url)
        made = Bench(settings.model_copy(update={"redis_url": url, "rate_limit": 1_000}))
        with contextlib.closing(made):
            yield made, client


def used(client):
    return client.info("memory")["used_memory"]


def test_a_full_redis_refuses_what_is_new_and_operators_and_workers_make_room(own):
    bench, client = own
    with gateway(bench.settings) as http:
        with running_worker(bench.settings, abrupt=True):
            dead = [bench.submit("echo", DEAD) for _ in range(6)]
            for task_id in dead:
                bench.finished(task_id)
            slow = bench.submit("echo", {"message": "y" * 10_000, "sleepSeconds": 1.5, "failTimes": 1})
            queued = [bench.submit("echo", {"message": "y" * 10_000, "sleepSeconds": 1}) for _ in range(3)]
            bench.wait_for(slow, State.RUNNING)
            client.config_set("maxmemory", 500_000)  # below what an empty one needs: full until the end
            full = eventually(lambda: (r := http.get("/readyz")).status_code == 503 and r, 10, "it is not ready")
            refused = http.post("/v1/tasks", json={"type": "echo", "payload": {"message": "z"}})
            before = used(client)
            discarded = [http.delete(f"/v1/dead-letters/{task_id}") for task_id in dead[:2]]
            freed = before - used(client)
            redriven = http.post(f"/v1/dead-letters/{dead[2]}/redrive")
            bench.stores.bulk.add(BulkRedrive(DeadLetterFilter(type="echo"), 2, 0, "op"))
            ended = [bench.finished(task_id, 40).state for task_id in (slow, *queued)]
            eventually(lambda: bench.hops(dead[2]).count("dead-lettered") == 2, 20, "the redriven one died again")
            eventually(lambda: not bench.stores.bulk.next(), 20, "the bulk redrive is done")
            workers = bench.stores.redis.run(("HLEN", bench.stores.redis.keys.workers))[0]
        client.config_set("maxmemory", 0)
        eventually(lambda: http.get("/readyz").status_code == 200, 10, "it is ready again")
        accepted = http.post("/v1/tasks", json={"type": "echo", "payload": {"message": "z"}})

    assert "Redis is full" in full.json["checks"]["store"]["detail"]
    assert (refused.status_code, refused.json["type"]) == (503, "/problems/store-unavailable")
    assert "full" in refused.json["detail"]
    assert refused.headers["RateLimit"]
    assert [answer.status_code for answer in discarded] == [204, 204]
    assert freed > SIZE
    assert redriven.status_code == 202
    assert ended == [State.SUCCEEDED] * 4
    assert workers == 1
    assert accepted.status_code == 202
    assert len(bench.store.list(limit=200).items) == 11  # nothing of what was refused
