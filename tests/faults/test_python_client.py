"""The Python client through real faults: what it submits is one task, what it waits for it sees."""

import contextlib
import threading

import psutil
import pytest
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from robot_dispatch_client import (
    ConnectionFailed,
    PublishUnconfirmed,
    QueueDepthExceeded,
    RetryPolicy,
    Submission,
    WaitTimeout,
)
from support import api_clients
from support.gateway_live import running_gateway
from support.ports import free_port
from support.proxy import DOWN, UP, Proxy
from support.waiting import eventually
from support.worker import open_bench, running_worker

PAYLOAD = {"message": "x"}

#: Patience with a machine that is busy.
PATIENT = RetryPolicy(total=120, first=0.05, longest=1)


@pytest.fixture(params=api_clients.KINDS)
def client_of(request):
    """Makes clients of addresses."""
    with contextlib.ExitStack() as stack:

        def make(url, **arguments):
            arguments = {"api_key": "", "retry": PATIENT, **arguments}
            return stack.enter_context(contextlib.closing(api_clients.make(request.param, str(url), **arguments)))

        yield make


@pytest.fixture(scope="module")
def site(module_settings):
    """A bench and the URL of a gateway, for all tests that break only the way to it."""
    with open_bench(module_settings) as bench, running_gateway(module_settings, free_port()) as (http, _, _):
        yield bench, str(http.base_url)


@pytest.fixture
def shared(site):
    """The bench of `site`, without a task of an earlier test."""
    bench, _ = site
    eventually(lambda: bench.consumers(names.WORK_QUEUE) == 0, 20, "no worker is left")
    bench.purge(names.WORK_QUEUE, names.LEASE_QUEUE, names.RECORDER_QUEUE, names.DEAD_QUEUE)
    client = bench.stores.redis
    for key in client.run(("KEYS", f"{bench.settings.redis_prefix}*"))[0]:
        client.run(("DEL", key))
    assert ids(bench) == []
    return bench


@pytest.fixture
def proxied(site):
    """A proxy in front of the gateway of `site`."""
    with Proxy.to(site[1]) as proxy:
        yield proxy


def cut_once(proxy, direction, marker):
    """Cut at the first piece with a text in this direction."""
    done = threading.Event()

    def watch(way, data):
        if way == direction and marker in data and not done.is_set():
            done.set()
            proxy.cut()

    proxy.watch = watch
    return done


def ids(bench):
    return [record.task_id for record in bench.store.list().items]


@pytest.mark.parametrize(("direction", "marker"), [(DOWN, b"HTTP/1.1 202"), (UP, b"POST /v1/tasks")])
def test_a_connection_that_breaks_in_the_middle_of_a_submission_is_one_task(
    shared, proxied, client_of, direction, marker
):
    """With the response lost the task was accepted; with the request lost it was not: the repeat can't know."""
    cut = cut_once(proxied, direction, marker)
    task = client_of(proxied.url).submit("echo", PAYLOAD)

    assert cut.is_set()
    assert ids(shared) == [task.task_id]
    assert shared.depth(names.WORK_QUEUE) == 1


def test_a_response_that_does_not_come_is_one_task(shared, proxied, client_of):
    """A silent network: the client's own timeout, then the same key again."""
    proxied.hold(DOWN)
    eased = threading.Thread(target=lambda: (eventually(lambda: ids(shared), 20), proxied.release()))
    eased.start()
    task = client_of(proxied.url, timeout=1).submit("echo", PAYLOAD)
    eased.join()

    assert ids(shared) == [task.task_id]


def test_a_batch_whose_answer_is_lost_is_each_task_once(shared, proxied, client_of):
    cut = cut_once(proxied, DOWN, b"HTTP/1.1 207")
    found = client_of(proxied.url).submit_many(
        Submission(type="echo", payload={"message": str(number)}) for number in range(20)
    )

    assert cut.is_set()
    assert sorted(verdict.unwrap().task_id for verdict in found) == sorted(ids(shared))
    assert [verdict.replayed for verdict in found] == [True] * 20
    assert shared.depth(names.WORK_QUEUE) == 20


def test_a_redrive_whose_answer_is_lost_is_not_repeated(shared, proxied, client_of):
    client = client_of(proxied.url)
    with running_worker(shared.settings):
        dead = client.wait(client.submit("echo", {"message": "x", "permanent": True}), timeout=60)
        shared.settled_dead_letters(1)
    cut = cut_once(proxied, DOWN, b"HTTP/1.1 202")
    with pytest.raises(ConnectionFailed) as caught:
        client.redrive(dead)

    assert cut.is_set()
    assert not caught.value.unsent
    assert shared.store.get(dead.task_id).cycle == 1


def test_a_gateway_that_dies_is_waited_for(bench, client_of):
    """The wait sees its end through another gateway on the same address; what is submitted meanwhile is accepted by that one."""
    port = free_port()
    with running_gateway(bench.settings, port) as (http, process, _):
        client = client_of(http.base_url)
        first = client.submit("echo", PAYLOAD)
        ended, accepted = [], []
        waiting = threading.Thread(target=lambda: ended.append(api_wait(http.base_url, first)))
        waiting.start()
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            each.kill()
        psutil.wait_procs(family[1:], timeout=10)
    submitting = threading.Thread(target=lambda: accepted.append(client.submit("echo", PAYLOAD)))
    submitting.start()
    with running_gateway(bench.settings, port), running_worker(bench.settings, abrupt=True):
        waiting.join(90)
        submitting.join(90)
        second = client.wait(accepted[0], timeout=90)

    assert (ended[0].task_id, ended[0].state, second.state) == (first.task_id, State.SUCCEEDED, State.SUCCEEDED)
    assert sorted(ids(bench)) == sorted([first.task_id, second.task_id])


def api_wait(url, task):
    """Wait on a client of one's own."""
    with contextlib.closing(api_clients.make("sync", str(url), api_key="", retry=PATIENT)) as client:
        return client.wait(task, timeout=120)


def test_a_full_queue_is_waited_for_as_long_as_the_policy_allows(bench, client_of):
    settings = bench.settings.model_copy(update={"queue_depth_limit": 1})
    with running_gateway(settings, free_port()) as (http, _, _):
        impatient, patient = client_of(http.base_url, retry=RetryPolicy(total=0)), client_of(http.base_url)
        accepted, refused = _until_refused(impatient)
        with running_worker(settings, abrupt=True):
            late = patient.submit("echo", PAYLOAD, idempotency_key=refused.idempotency_key)
            done = patient.wait(late, timeout=90)

    assert refused.retry_after >= 1
    assert done.state == State.SUCCEEDED
    assert sorted(ids(bench)) == sorted([*accepted, late.task_id])


def _until_refused(client):
    """Submit until the queue is full: the tasks, and the refusal."""
    accepted = []
    while len(accepted) < 1_000:
        try:
            accepted.append(client.submit("echo", PAYLOAD).task_id)
        except QueueDepthExceeded as exc:
            return accepted, exc
    raise AssertionError("a queue of 1,000 is not full")


def test_a_broker_that_does_not_confirm_is_one_task(bench, client_of):
    """503 `publish-unconfirmed`: the same key yields the same task once RabbitMQ answers."""
    with Proxy.to(bench.settings.broker("gateway")) as broker:
        behind = bench.settings.model_copy(update={"broker_url": SecretStr(broker.url), "confirm_timeout": 1.0})
        with running_gateway(behind, free_port()) as (http, _, _):
            broker.hold(DOWN)
            with pytest.raises(PublishUnconfirmed) as caught:
                client_of(http.base_url, retry=RetryPolicy(total=0)).submit("echo", PAYLOAD)
            broker.release()
            task = client_of(http.base_url).submit("echo", PAYLOAD, idempotency_key=caught.value.idempotency_key)

    assert caught.value.task_id == task.task_id
    assert ids(bench) == [task.task_id]


def test_a_stream_that_is_cut_again_and_again_has_each_hop_once(shared, proxied, client_of):
    client = client_of(proxied.url)
    task = client.submit("echo", {"message": "x", "sleepSeconds": 1})
    seen = []
    with running_worker(shared.settings, abrupt=True):
        for hop in client.stream(task):
            seen.append(hop.seq)
            proxied.cut()

    assert seen == list(range(1, len(seen) + 1))
    assert shared.hops(task.task_id)[-1] == "succeeded"
    assert len(seen) == len(shared.hops(task.task_id))


def test_a_wait_that_ends_leaves_the_task_alone(shared, proxied, client_of):
    client = client_of(proxied.url, retry=RetryPolicy(total=5, first=0.05))
    task = client.submit("echo", PAYLOAD)
    proxied.refuse()
    proxied.cut()
    with pytest.raises((WaitTimeout, ConnectionFailed)):
        client.wait(task, timeout=2)
    proxied.admit()

    assert client.get(task.task_id).state == State.QUEUED
    assert shared.depth(names.WORK_QUEUE) == 1
