"""Shards of the default lane, end to end: what is lost, what runs twice, what overtakes what, while things die."""

import threading
import time
from collections import Counter

import pytest

import topology
from dispatch.broker import provision
from dispatch.protocol import names
from dispatch.protocol.lanes import DEFAULT
from dispatch.protocol.mending import Mend
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import State
from dispatch.protocol.shards import shard_of
from dispatch.store.pauses import Pauses
from robot_dispatch_client import Client, RetryPolicy
from support import stack as stacks
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

SHARDS = 3
QUEUES = [names.shard_queue(shard) for shard in range(SHARDS)]


def sharded(settings, shards=SHARDS):
    chosen = settings.model_copy(update={"shards": shards})
    provision.apply(topology.broker_map(chosen), chosen)
    return chosen


@pytest.fixture
def bench(settings):
    with open_bench(sharded(settings)) as made:
        yield made


def submit(bench, count, **more):
    return [bench.submit("echo", {"message": str(number), **more}) for number in range(count)]


@each_pool
def test_tasks_of_all_shards_run_once_on_the_ladder_and_after_delays_too(bench, pool):
    ids = submit(bench, 30)
    failing = submit(bench, 6, failTimes=1)
    later = [bench.submit("echo", {"message": "later"}, delay=2) for _ in range(6)]
    spread = Counter(shard_of(task_id, SHARDS) for task_id in [*ids, *failing])
    depths = {queue: bench.depth(queue) for queue in QUEUES}
    with running_worker(bench.settings, abrupt=True, pool=pool):
        records = [bench.finished(task_id, 60) for task_id in [*ids, *failing, *later]]
        bench.drained(*QUEUES)

    assert depths == {names.shard_queue(shard): spread[shard] for shard in range(SHARDS)}
    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {bench.runs(task_id) for task_id in [*ids, *later]} == {1}
    assert {bench.runs(task_id) for task_id in failing} == {2}


def test_a_worker_killed_with_tasks_of_all_shards_loses_none_and_doubles_none(bench):
    ids = submit(bench, 30, sleepSeconds=0.2)
    with running_worker(bench.settings, abrupt=True) as worker:
        eventually(lambda: any(bench.state(task_id) is State.SUCCEEDED for task_id in ids), 30, "some have run")
        worker.kill()
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id, 90) for task_id in ids]
        bench.drained(*QUEUES, timeout=60)

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {bench.hops(task_id).count("succeeded") for task_id in ids} == {1}


def test_the_default_lane_is_paused_with_all_of_its_shards(bench):
    pauses = Pauses(bench.stores.redis)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: [bench.consumers(queue) for queue in QUEUES] == [1] * SHARDS, 20, "all are consumed")
        pauses.put(Pause(f"lane:{DEFAULT}", "a test", "me", int(time.time() * 1_000)))
        eventually(lambda: [bench.consumers(queue) for queue in QUEUES] == [0] * SHARDS, 20, "none is")
        ids = submit(bench, 12)
        waiting = {bench.state(task_id) for task_id in ids}
        pauses.remove(f"lane:{DEFAULT}")
        records = [bench.finished(task_id, 60) for task_id in ids]

    assert waiting == {State.QUEUED}
    assert {record.state for record in records} == {State.SUCCEEDED}


def test_shards_are_added_while_tasks_wait_and_run_and_each_runs_once(settings):
    with open_bench(settings) as before:
        ids = submit(before, 10)
        chosen = sharded(settings)
        with open_bench(chosen) as bench, running_worker(settings, abrupt=True):  # one that knows no shards yet
            ids += submit(bench, 10)
            with running_worker(chosen, abrupt=True):
                records = [bench.finished(task_id, 60) for task_id in ids]
                bench.drained(*QUEUES)

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {before.runs(task_id) for task_id in ids} == {1}


def test_fewer_shards_leave_nothing_behind_where_the_workers_empty_the_queues_first(bench, settings):
    ids = submit(bench, 24)
    fewer = sharded(settings, 2)
    with open_bench(fewer) as after:
        ids += submit(after, 12)
        with running_worker(bench.settings, abrupt=True):  # with the shards of before
            records = [after.finished(task_id, 60) for task_id in ids]
            after.drained(*QUEUES)

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert {after.runs(task_id) for task_id in ids} == {1}


def test_the_tasks_of_a_concurrency_key_are_in_one_shard_and_keep_their_order(bench):
    keys = ["robot-1", "robot-2", "robot-3", "robot-4"]
    ids = {key: [] for key in keys}
    for _ in range(6):
        for key in keys:
            ids[key].append(bench.submit("echo", {"message": key}, concurrency_key=key))
    depths = Counter(shard_of(key, SHARDS) for key in keys)
    found = [bench.depth(queue) for queue in QUEUES]
    with running_worker(bench.settings, abrupt=True):
        records = {key: [bench.finished(task_id, 60) for task_id in ids[key]] for key in keys}

    assert found == [6 * depths[shard] for shard in range(SHARDS)]
    for key in keys:
        began = [record.started_at for record in records[key]]
        assert began == sorted(began)


def test_a_mended_dead_letter_goes_to_the_shard_of_its_new_key(bench):
    old, new = (next(key for key in map(str, range(99)) if shard_of(key, SHARDS) == shard) for shard in (1, 2))
    with running_worker(bench.settings):
        task_id = bench.submit("echo", {"message": "as it was", "permanent": True}, concurrency_key=old)
        bench.finished(task_id)
        bench.drained(names.RECORDER_QUEUE)
    bench.stores.service(bench.publisher).redrive(task_id, by="test", mend=Mend({"message": "mended"}, key=new))
    depths = [bench.depth(queue) for queue in QUEUES]
    with running_worker(bench.settings, abrupt=True):
        record = eventually(lambda: (found := bench.store.get(task_id)).state is State.SUCCEEDED and found, 40)

    assert depths == [0, 0, 1]
    assert (record.concurrency_key, record.result["message"]) == (new, "mended")


# --- RabbitMQ dies under load -----------------------------------------------------------------------
KEYS, EACH = 6, 12


class KeyedClient(threading.Thread):
    """Submits the tasks of one key, the next one when the one before was accepted."""

    def __init__(self, url, key):
        super().__init__(daemon=True)
        self.url, self.key, self.ids = url, key, []

    def run(self):
        with Client(self.url, retry=RetryPolicy(total=240)) as api:
            for number in range(EACH):
                payload = {"message": f"{self.key} {number}", "sleepSeconds": 0.05}
                sent = api.submit("echo", payload, concurrency_key=self.key, idempotency_key=f"{self.key}-{number}")
                self.ids.append(sent.task_id)


def left_in_queues(api):
    """What is still to run; copies of those that were held until their turn came lie in the hold queue for its TTL."""
    return {queue.name: queue.total for queue in api.queues() if queue.total and queue.name != names.HOLD_QUEUE}


@pytest.mark.timeout(420)
def test_a_rabbitmq_that_is_killed_under_load_loses_nothing_doubles_nothing_and_keeps_each_keys_order():
    with stacks.running("servers,worker,gateway", shards=2, concurrency_min=4, concurrency_max=4) as stack:
        url = stack.env["DISPATCH_HTTP_URL"]
        clients = [KeyedClient(url, f"robot-{number}") for number in range(KEYS)]
        with Client(url, retry=RetryPolicy(total=240)) as api:
            for each in clients:
                each.start()
            for part in (0.2, 0.6):
                eventually(lambda part=part: sum(len(each.ids) for each in clients) >= KEYS * EACH * part, 60, "load")
                stack.kill_and_see_back("RABBITMQ", 90)
            for each in clients:
                each.join(240)
            tasks = {each.key: [api.wait(task_id, 180) for task_id in each.ids] for each in clients}
            hops = {task.task_id: [hop.kind for hop in api.events(task)] for found in tasks.values() for task in found}
            eventually(lambda: not left_in_queues(api), 60, lambda: f"left: {left_in_queues(api)}")

    every = [task for found in tasks.values() for task in found]
    assert len({task.task_id for task in every}) == KEYS * EACH
    assert Counter(task.state for task in every) == {"SUCCEEDED": KEYS * EACH}
    assert {kinds.count("succeeded") for kinds in hops.values()} == {1}
    # A worker that has lost its connection gives up what it runs, whose copy comes again.
    assert {kinds.count("started") - kinds.count("stopped") for kinds in hops.values()} == {1}
    assert {shard_of(task.concurrency_key, 2) for task in every} == {0, 1}
    for found in tasks.values():
        began = [task.started_at for task in found]
        assert began == sorted(began)
