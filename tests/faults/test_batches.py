"""P1, P3, P4: the wire to Redis breaks, or falls silent, while one round trip carries the steps of many tasks."""

import contextlib
import subprocess
import sys

import pytest
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from support.proxy import DOWN, UP, Proxy
from support.waiting import eventually
from support.worker import ROOT, each_pool, environment, running_worker

PAYLOAD = {"message": "x"}

#: Scripts in one piece of what a worker sends, from which on it is a batch.
BATCH = 3


class CutsBatches:
    """Breaks every connection at every second batch: before Redis has it, or when Redis has carried it out and answers.

    Args:
        proxy: between a worker and Redis.
        direction: of the piece that is lost.
        times: to do it.
    """

    def __init__(self, proxy, direction, times):
        self._proxy, self._direction, self._left = proxy, direction, times
        self._batches, self._armed = 0, False
        self.cuts = 0

    def __call__(self, direction, data):
        if direction == UP and data.count(b"EVALSHA") >= BATCH:
            self._batches += 1
            self._armed = self._left > 0 and self._batches % 2 == 1
        if self._armed and direction == self._direction:
            self._armed = False
            self._left -= 1
            self.cuts += 1
            self._proxy.cut()


@contextlib.contextmanager
def _through(bench):
    """A proxy to Redis, and settings for a worker behind it."""
    with Proxy.to(bench.settings.redis_url.get_secret_value()) as proxy:
        yield proxy, bench.settings.model_copy(update={"redis_url": SecretStr(proxy.url)})


@each_pool
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_batch_whose_wire_breaks_costs_no_task_and_no_attempt(bench, pool, direction):
    ids = [bench.submit("echo", PAYLOAD) for _ in range(60)]
    with _through(bench) as (proxy, settings):
        cuts = CutsBatches(proxy, direction, times=4)
        proxy.watch = cuts
        with running_worker(settings, pool=pool, abrupt=True):
            records = [bench.finished(task_id, 60) for task_id in ids]
            bench.drained()
            proxy.watch = None

    assert cuts.cuts >= 2
    assert {(each.state, each.attempt) for each in records} == {(State.SUCCEEDED, 1)}
    assert {bench.hops(task_id).count("succeeded") for task_id in ids} == {1}
    assert bench.depth(names.DEAD_QUEUE) == 0


@each_pool
def test_while_redis_is_silent_a_worker_answers_its_operator_and_keeps_its_broker(bench, pool):
    with _through(bench) as (proxy, settings), running_worker(settings, pool=pool, abrupt=True) as worker:
        bench.finished(bench.submit("echo", PAYLOAD))
        proxy.hold(DOWN)
        ids = [bench.submit("echo", PAYLOAD) for _ in range(20)]
        eventually(lambda: "Redis" in worker.text(), 30, "it misses Redis")
        shown = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "celery_app", "inspect", "ping", "--timeout", "10"],
            cwd=ROOT, env=environment(bench.settings), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        proxy.release()
        records = [bench.finished(task_id, 60) for task_id in ids]
        bench.drained()

    assert "pong" in shown.stdout, shown
    assert "no connection to RabbitMQ" not in worker.text()
    assert {(each.state, each.attempt) for each in records} == {(State.SUCCEEDED, 1)}
