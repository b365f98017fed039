"""P3, P4, P5: hand-overs that go together break off in the middle, and each of their tasks is handed over once."""

import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.proxy import DOWN, Proxy
from support.waiting import eventually
from support.worker import each_pool, running_worker

TOGETHER = 30


def _failing(bench):
    """Tasks that wait for a worker: half fail once, half for good."""
    kinds = ({"failTimes": 1}, {"permanent": True})
    return [bench.submit("echo", {"message": "x", **kinds[number % 2]}) for number in range(TOGETHER)]


def _ended(bench, ids):
    for task_id in ids:
        bench.finished(task_id, 60)
    bench.drained(names.rung_queue("1m"), names.LEASE_QUEUE, names.WORK_QUEUE, names.RECORDER_QUEUE)
    letters = bench.settled_dead_letters(TOGETHER // 2, 60)
    records = [bench.store.get(task_id) for task_id in ids]

    assert {record.state for record in records[::2]} == {State.SUCCEEDED}
    assert {record.attempt for record in records[::2]} == {2}
    assert {record.state for record in records[1::2]} == {State.DEAD_LETTERED}
    assert sorted(letter.task_id for letter in letters) == sorted(ids[1::2])
    kinds = [bench.hops(task_id) for task_id in ids]
    assert {hops.count("failed") for hops in kinds} == {1}
    assert {hops.count("delayed") for hops in kinds[::2]} == {hops.count("succeeded") for hops in kinds[::2]} == {1}
    assert {hops.count("dead-lettered") for hops in kinds[1::2]} == {1}


@each_pool
@pytest.mark.parametrize("point", ["route.decided", "route.published", "route.handed-over"])
def test_a_worker_dies_with_failures_that_it_hands_over_together(bench, monkeypatch, tmp_path, pool, point):
    died = tmp_path / "died-here"
    ids = _failing(bench)
    with monkeypatch.context() as armed:
        armed.setenv(crashpoints.VARIABLE, f"{point}={died}")
        with running_worker(bench.settings, abrupt=True, pool=pool) as worker:
            eventually(lambda: worker.process.poll() is not None, 30, "it dies there")
    with running_worker(bench.settings, abrupt=True, pool=pool):
        _ended(bench, ids)

    assert died.exists()


@each_pool
@pytest.mark.parametrize("server", ["redis", "rabbitmq"])
def test_the_answers_to_several_break_off_in_the_middle(bench, pool, server):
    """Some have their answer, others none: cut again and again, a little later each time."""
    urls = {"redis": bench.settings.redis_url.get_secret_value(), "rabbitmq": bench.settings.broker("worker")}
    field = {"redis": "redis_url", "rabbitmq": "broker_url"}[server]
    with Proxy.to(urls[server]) as proxy:
        away = bench.settings.model_copy(update={field: SecretStr(proxy.url)})
        with running_worker(away, abrupt=True, pool=pool):
            ids = _failing(bench)
            cuts = _cut_in_answers(proxy)
            _ended(bench, ids)

    assert len(cuts) > 1


def _cut_in_answers(proxy):
    """Cut every connection after so many pieces of answers; returns the cuts, as they come."""
    at, seen, cuts = [5, 15, 30, 60], [], []

    def watch(direction, data):
        if direction == DOWN:
            seen.append(len(data))
        if len(cuts) < len(at) and len(seen) >= at[len(cuts)]:
            cuts.append(len(seen))
            proxy.cut()

    proxy.watch = watch
    return cuts
