"""P1, P7: RabbitMQ comes back without its queues, or without any of its data, under a running gateway and worker."""

import contextlib
import shutil

import pytest
from pydantic import SecretStr

import topology
from dispatch.broker import provision
from dispatch.broker.management import vhost
from dispatch.broker.publisher import Publisher
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.cluster import running_cluster
from support.gateway_live import gateway
from support.stores import Stores
from support.waiting import eventually
from support.worker import open_bench, running_worker

TASK = {"type": "echo", "payload": {"message": "x"}}
SLOW = {"message": "x", "sleepSeconds": 1}


def _delete_queues(servers, bench):
    with servers.management() as api:
        for queue in topology.broker_map(bench.settings).queues:
            api.delete(f"/api/queues/{vhost(bench.settings)}/{queue.name}").raise_for_status()


def _accepted(client):
    answer = client.post("/v1/tasks", json=TASK)
    assert answer.status_code in (202, 503), answer.text
    return answer.json["taskId"] if answer.status_code == 202 else None


@contextlib.contextmanager
def _impatient_sweeper(bench):
    """Looks at tasks as if the long silence after which they count as lost were over."""
    settings = bench.settings.model_copy(update={"queue_ttl": 0.1, "sweep_margin": 0.1, "lease": 0.5})
    publisher, stores = Publisher(settings.broker("replay")), Stores(settings)
    sweeper = stores.sweeper(publisher)

    def sweep(task_ids):
        for task_id in task_ids:
            stores.reminders.set(task_id, 0)
        sweeper.sweep()
        return all(bench.store.get(task_id).state.terminal for task_id in task_ids)

    try:
        yield sweep
    finally:
        stores.close()
        publisher.close()


def _works_as_before(bench):
    """New tasks succeed, climb a rung, and die where people see it."""
    good = bench.submit("echo", {"message": "x"})
    climbs = bench.submit("echo", {"message": "x", "failTimes": 1})
    dies = bench.submit("echo", {"message": "x", "permanent": True})
    states = [bench.finished(task_id).state for task_id in (good, climbs, dies)]
    eventually(lambda: bench.depth(names.RECORDER_QUEUE) == 0, 20, "the tap is read")

    assert states == [State.SUCCEEDED, State.SUCCEEDED, State.DEAD_LETTERED]
    assert bench.depth(names.DEAD_QUEUE) == 1
    assert provision.verify(topology.broker_map(bench.settings), bench.settings).drift == 0


def test_a_gateway_without_workers_makes_the_queues_anew(servers, bench):
    with gateway(bench.settings) as client:
        assert _accepted(client)

        _delete_queues(servers, bench)
        task_id = eventually(lambda: _accepted(client), 20, "tasks are accepted again")
        eventually(lambda: client.get("/readyz").status_code == 200, 20, "the gateway is ready")
    with running_worker(bench.settings, abrupt=True):
        assert bench.finished(task_id).state is State.SUCCEEDED


def test_queues_that_are_deleted_come_back_and_so_do_their_tasks(servers, bench):
    with gateway(bench.settings) as client, running_worker(bench.settings, abrupt=True) as worker:
        tasks = [bench.submit("echo", SLOW) for _ in range(20)]
        waits = bench.submit("echo", {"message": "x", "failTimes": 1})
        eventually(lambda: bench.depth(names.WORK_QUEUE) == 0, 20, "the worker has them in hand")
        _delete_queues(servers, bench)
        eventually(lambda: _accepted(client), 20, "tasks are accepted again")
        eventually(lambda: bench.consumers(names.WORK_QUEUE) == 1, 30, "the worker consumes again")
        with _impatient_sweeper(bench) as sweep:
            eventually(lambda: sweep([*tasks, waits]), 60, "what was lost has come back")
        states = {bench.store.get(task_id).state for task_id in [*tasks, waits]}

        assert states == {State.SUCCEEDED}
        assert {bench.hops(task_id).count("succeeded") for task_id in tasks} == {1}
        _works_as_before(bench)
        assert worker.process.poll() is None


@pytest.fixture
def lonely():
    """A RabbitMQ of the test's own."""
    with running_cluster(size=1) as cluster:
        yield cluster


def test_a_broker_whose_data_is_gone_gets_map_and_tasks_back(settings, lonely):
    changes = {
        "broker_url": SecretStr(lonely.broker_url),
        "management_url": SecretStr(lonely.management_url),
    }
    (member,) = lonely.members
    with (
        open_bench(settings.model_copy(update=changes)) as bench,
        gateway(bench.settings) as client,
        running_worker(bench.settings, abrupt=True) as worker,
    ):
        tasks = [bench.submit("echo", SLOW) for _ in range(20)]
        member.kill()
        shutil.rmtree(member.node.directory / "data")
        member.start()
        eventually(lonely.whole, 60, "RabbitMQ is back")
        eventually(lambda: _accepted(client), 30, "tasks are accepted again")
        eventually(lambda: bench.consumers(names.WORK_QUEUE) == 1, 40, "the worker consumes again")
        with _impatient_sweeper(bench) as sweep:
            eventually(lambda: sweep(tasks), 60, "what was lost has come back")
        states = {bench.store.get(task_id).state for task_id in tasks}

        assert states == {State.SUCCEEDED}
        _works_as_before(bench)
        assert worker.process.poll() is None
