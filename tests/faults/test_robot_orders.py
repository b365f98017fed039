"""P1, P3: robots that work for longer than a worker, a broker or a version lives are ordered once."""

import contextlib
import os
import signal

import httpx
import psutil
import pytest
from pydantic import SecretStr

from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import BulkJob, JobVerb
from dispatch.protocol.message import CHECKPOINT
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import State
from dispatch.protocol.retry import parse_ladder
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.concurrency import ConcurrencyKeys
from dispatch.store.jobs import Jobs
from dispatch.store.pauses import Pauses
from examples.robot_simulator.app import create_app
from examples.robot_simulator.server import serving
from examples.robot_simulator.world import Config
from support import stack
from support.gateway_live import running_gateway
from support.ports import free_port
from support.steps_client import waiting
from support.waiting import eventually
from support.worker import open_bench, running_worker

#: Several workers one after the other, or a whole system that is killed: minutes on a busy machine.
pytestmark = pytest.mark.timeout(300)

#: Orders of the run with kills, and the seconds that a robot works.
ORDERS, SECONDS = 60, 3

#: A version whose `robot.clean` keeps another state.
NEWER = "support.newer_robots"


@pytest.fixture
def vendor(settings):
    """A vendor, and settings with its address."""
    app = create_app(Config(work_seconds=SECONDS))
    with serving(app) as url, httpx.Client(base_url=url) as client:
        yield client, settings.model_copy(update={"robot_api_url": url})


def _created(client):
    return {key: count["created"] for key, count in client.get("/control/orders").json().items()}


def _kill(system, name):
    """SIGKILL to a process and to all that it has started."""
    parent = psutil.Process(system.pid(name))
    for process in (*parent.children(recursive=True), parent):
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)


def _submit(client, number):
    body = {"type": "robot.clean", "payload": {"robot": f"SN-{number}", "areas": ["lobby"]}}
    answer = client.post("/v1/tasks", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["taskId"]


def _tasks(client, ids):
    """The tasks; none while the gateway can't read them."""
    try:
        answers = [client.get(f"/v1/tasks/{task_id}") for task_id in ids]
    except httpx.HTTPError:
        return []
    return [answer.json() for answer in answers] if {answer.status_code for answer in answers} == {200} else []


def _all(client, ids, state):
    tasks = _tasks(client, ids)
    return tasks if tasks and {task["state"] for task in tasks} == {state} else None


def test_worker_broker_and_redis_are_killed_while_robots_work_and_each_is_ordered_once():
    settings = {
        "ladder": "1m=1,5m=2,30m=3", "lease": 2, "lease_park": 1, "concurrency_min": 2, "concurrency_max": 4,
        "unpublished_grace": 2, "sweep_interval": 1,
    }  # fmt: skip
    with (
        stack.running("servers,simulator,worker,gateway", **settings) as system,
        httpx.Client(base_url=system.env["DISPATCH_HTTP_URL"], timeout=30) as client,
        httpx.Client(base_url=system.env["ROBOT_API_URL"], timeout=30) as robots,
    ):
        robots.post("/control/jobs", json={"seconds": SECONDS, "times": None}).raise_for_status()
        ids = [_submit(client, number) for number in range(ORDERS)]
        eventually(lambda: robots.get("/control/counts").json()["active"] >= ORDERS / 4, 60, "robots work")
        for victim in ("WORKER", "REDIS", "RABBITMQ"):
            _kill(system, victim)
        tasks = eventually(lambda: _all(client, ids, "SUCCEEDED"), 180, lambda: f"all succeed: {_tasks(client, ids)}")
        orders = _created(robots)

    assert {task["result"]["state"] for task in tasks} == {"SUCCEEDED"}
    assert orders == dict.fromkeys(ids, 1)


def test_the_vendors_callback_ends_a_wait_that_was_estimated_too_long(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 2, "estimateSeconds": 3_600, "callback": "twice"}).raise_for_status()
    port = free_port()
    reachable = {"public_url": f"http://127.0.0.1:{port}", "callback_secrets": SecretStr("s" * 40), "delay_levels": 9}
    called = settings.model_copy(update=reachable)
    with open_bench(called) as bench, running_gateway(called, port), running_worker(called, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
        waits = waiting(bench, task_id)
        record = bench.finished(task_id, 60)
        callbacks = eventually(lambda: client.get("/control/counts").json()["callbacks"]["delivered"] == 1, 20)

    assert waits.wakes_at - waits.updated_at > 250_000
    assert (record.state, record.attempt, record.step, callbacks) == (State.SUCCEEDED, 1, 1, True)
    assert _asked(client, "command") == 1


def test_a_robot_works_while_no_worker_runs(vendor):
    client, settings = vendor
    with open_bench(settings) as bench:
        with running_worker(settings) as first:
            task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
            waiting(bench, task_id)
            first.kill()
        eventually(lambda: client.get("/control/counts").json()["active"] == 0, 20, "the robot has finished")
        with running_worker(settings, abrupt=True):
            record = bench.finished(task_id, 30)

    assert (record.state, record.attempt, record.lost_runs) == (State.SUCCEEDED, 1, 0)
    assert _created(client) == {task_id: 1}


def test_a_robot_that_always_gets_stuck_is_ordered_once_an_attempt_and_ends_in_the_dlq(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 0.5, "outcome": "FAILED", "times": None})
    with open_bench(settings) as bench, running_worker(settings):
        task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
        record = bench.finished(task_id, 60)
        hops = [hop.get("attempt") for hop in bench.store.hops(task_id) if hop["kind"] == "failed"]

    assert (record.state, record.attempt, record.error.type) == (State.DEAD_LETTERED, 4, "robot-failed")
    assert hops == [1, 2, 3, 4]
    assert _created(client) == {task_id: 4}


def test_a_state_of_another_version_is_a_clear_failure_and_the_version_that_reads_it_goes_on(vendor):
    client, settings = vendor
    with open_bench(settings) as bench:
        with running_worker(settings) as first:
            task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
            waiting(bench, task_id)
            first.kill()
        with running_worker(settings, app=NEWER):
            dead = bench.finished(task_id, 30)
            (letter,) = bench.settled_dead_letters(1)
        with running_worker(settings, abrupt=True):
            bench.stores.service(bench.publisher).redrive(task_id, by="ada")
            record = eventually(lambda: _succeeded(bench, task_id), 30, "its next cycle succeeds")

    assert (dead.state, dead.attempt, dead.error.type) == (State.DEAD_LETTERED, 1, "invalid-state")
    assert "command_name" in dead.error.message
    assert CHECKPOINT in letter.headers
    assert (record.cycle, record.result["state"]) == (1, "SUCCEEDED")
    assert _created(client) == {task_id: 1}


def _succeeded(bench, task_id):
    record = bench.store.get(task_id)
    return record if record.state is State.SUCCEEDED else None


def test_a_cancelled_order_stops_its_robot_although_no_handler_runs(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 12, "times": None}).raise_for_status()
    with open_bench(settings) as bench, running_worker(settings, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
        waiting(bench, task_id)
        asked = bench.stores.control(bench.publisher).cancel(task_id, by="op")
        record = bench.finished(task_id)
        counts = client.get("/control/counts").json()

    assert asked.cancel_requested
    assert (record.state, record.error.message) == (State.CANCELLED, "cancelled by op")
    assert (counts["active"], _created(client)) == (0, {task_id: 1})


def _cancel(bench, task_id):
    return bench.stores.control(bench.publisher).cancel(task_id, by="op")


def _asked(client, view):
    return client.get("/control/counts").json()["requests"].get(view, 0)


def test_an_order_that_is_cancelled_in_the_middle_of_a_poll_stops_its_robot(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 600, "estimateSeconds": 1}).raise_for_status()
    client.post("/control/faults", json={"match": "commands", "latencySeconds": 3}).raise_for_status()
    with open_bench(settings) as bench, running_worker(settings, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
        eventually(lambda: _asked(client, "command") == 1, 20, "the poll is under way")
        asked = _cancel(bench, task_id)
        record = bench.finished(task_id)
        counts = client.get("/control/counts").json()

    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert (record.state, record.error.message) == (State.CANCELLED, "cancelled by op")
    assert (counts["active"], _created(client)) == (0, {task_id: 1})


def test_an_order_whose_response_was_lost_is_stopped_when_its_task_is_cancelled_on_the_rung(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 600, "times": None}).raise_for_status()
    slow = settings.model_copy(update={"ladder": parse_ladder("1m=60,5m=61,30m=62")})
    with open_bench(slow) as bench, running_worker(slow, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-LOST-1", "areas": ["lobby"]})
        bench.wait_for(task_id, State.RETRY_WAIT)
        works = client.get("/control/counts").json()["active"]
        _cancel(bench, task_id)
        record = bench.finished(task_id)
        counts = client.get("/control/counts").json()

    assert (works, counts["active"], record.state) == (1, 0, State.CANCELLED)
    assert _created(client) == {task_id: 1}


def test_an_order_whose_worker_was_killed_before_its_wait_is_stopped_when_its_task_is_cancelled(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 600, "times": None}).raise_for_status()
    # The order is accepted, and its response is not read: the worker dies waiting for it.
    client.post("/control/faults", json={"match": "orders", "latencySeconds": 4}).raise_for_status()
    with open_bench(settings) as bench:
        with running_worker(settings) as worker:
            task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
            eventually(lambda: _asked(client, "order") == 1, 20, "the order is on its way")
            worker.kill()
        eventually(lambda: client.get("/control/counts").json()["active"] == 1, 20, "the robot works")
        eventually(lambda: not bench.stores.claims.leased(task_id), 20, "its lease has lapsed")
        asked = _cancel(bench, task_id)
        with running_worker(settings, abrupt=True):
            record = bench.finished(task_id, 30)
        counts = client.get("/control/counts").json()

    assert (asked.state, asked.cancel_requested) == (State.RUNNING, True)
    assert (counts["active"], record.state) == (0, State.CANCELLED)
    assert _created(client) == {task_id: 1}


def test_an_order_that_a_pause_holds_between_two_polls_stops_its_robot_when_it_is_cancelled(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 600, "estimateSeconds": 1, "times": None}).raise_for_status()
    with open_bench(settings) as bench, running_worker(settings, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-1", "areas": ["lobby"]})
        waiting(bench, task_id)
        Pauses(bench.stores.redis).put(Pause("type:robot.clean", "a test", "op", 0))
        bench.wait_for(task_id, State.HELD)
        asked = _cancel(bench, task_id)
        record = bench.finished(task_id)
        counts = client.get("/control/counts").json()
        keys = ConcurrencyKeys(bench.stores.redis, lease=settings.lease)
        eventually(lambda: not keys.names(9), 20, "its robot is free")

    assert asked.cancel_requested
    assert (record.state, record.error.message) == (State.CANCELLED, "cancelled by op")
    assert (counts["active"], _created(client)) == (0, {task_id: 1})


def test_a_job_that_cancels_orders_stops_their_robots(vendor):
    client, settings = vendor
    client.post("/control/jobs", json={"seconds": 600, "times": None}).raise_for_status()
    slow = settings.model_copy(update={"ladder": parse_ladder("1m=60,5m=61,30m=62")})
    with open_bench(slow) as bench, running_worker(slow, abrupt=True):
        task_id = bench.submit("robot.clean", {"robot": "SN-LOST-1", "areas": ["lobby"]})
        bench.wait_for(task_id, State.RETRY_WAIT)
        works = client.get("/control/counts").json()["active"]
        job = BulkJob(new_task_id(), JobVerb.CANCEL, TaskFilter(type="robot.clean"), 10, 10.0, "op", 1)
        assert Jobs(bench.stores.redis).add(job)
        record = bench.finished(task_id)
        counts = client.get("/control/counts").json()

    assert (works, counts["active"], record.state) == (1, 0, State.CANCELLED)


def test_orders_of_one_robot_run_one_after_the_other_and_none_finds_it_busy(settings):
    app = create_app(Config(work_seconds=1, one_at_a_time=True))
    with serving(app) as url, httpx.Client(base_url=url) as client:
        own = settings.model_copy(update={"robot_api_url": url})
        with open_bench(own) as bench, running_worker(own, abrupt=True):
            ids = [bench.submit("robot.clean", {"robot": "SN-1", "areas": [f"room {n}"]}) for n in range(4)]
            records = [bench.finished(task_id, 60) for task_id in ids]
            hops = [bench.hops(task_id) for task_id in ids]
        orders = client.get("/control/orders").json()

    assert {(record.state, record.attempt) for record in records} == {(State.SUCCEEDED, 1)}
    assert orders == {task_id: {"received": 1, "created": 1} for task_id in ids}
    assert sorted(records, key=lambda record: record.finished_at) == records
    assert sum("held" in kinds for kinds in hops) >= 3
