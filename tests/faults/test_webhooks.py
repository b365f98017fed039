"""A task's end is announced once or more, never not at all, whatever dies meanwhile."""

import base64
import time

import pytest
from pydantic import SecretStr

from dispatch import crashpoints
from dispatch.control.service import ControlService
from dispatch.errors import StoreUnavailable
from dispatch.protocol import names, webhooks
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import BulkJob, JobVerb
from dispatch.protocol.message import WEBHOOK
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import State
from dispatch.protocol.task_filter import TaskFilter
from dispatch.protocol.webhooks import FAILED, SUCCEEDED, Webhook
from dispatch.store.jobs import Jobs
from dispatch.store.pauses import Pauses
from dispatch.submission.webhooks import WebhookSubmitter
from support.ports import free_port
from support.receiver import running_receiver
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OLDER = "whsec_" + base64.b64encode(KEY[::-1]).decode()


@pytest.fixture
def receiver():
    with running_receiver() as made:
        yield made


@pytest.fixture
def bench(settings, receiver):
    changes = {
        "webhook_secrets": SecretStr(f"{SECRET},{OLDER}"),
        "http_allowed_hosts": (f"127.0.0.1:{receiver.port}", "127.0.0.1:9"),
    }
    with open_bench(settings.model_copy(update=changes)) as made:
        yield made


def _submit(bench, receiver, *, url="", events=webhooks.EVENTS, **payload):
    webhook = Webhook(url or receiver.url, events)
    return bench.submit("echo", {"message": "x", **payload}, webhook=webhook, principal="ada")


def _announced(receiver, task_id, count=1):
    """What the receiver got about a task, by event id, once there are so many."""

    def got():
        return [each for each in receiver.got if each.json["data"]["taskId"] == task_id]

    eventually(lambda: len({each.headers["webhook-id"] for each in got()}) >= count, 30, "the end is announced")
    return got()


def _kinds(bench, task_id, kind):
    return eventually(lambda: kind in bench.hops(task_id) and bench.hops(task_id), 30, f"a hop {kind}")


@each_pool
def test_the_end_of_a_task_is_announced_and_signed_by_each_secret(bench, receiver, pool):
    with running_worker(bench.settings, abrupt=True, pool=pool):
        task_id = _submit(bench, receiver)
        record = bench.finished(task_id)
        (got,) = _announced(receiver, task_id)
        hops = _kinds(bench, task_id, "webhook-delivered")
        delivery = bench.finished(bench.store.hops(task_id)[-1]["deliveryId"])
    signed = webhooks.headers(
        [KEY, KEY[::-1]], got.headers["webhook-id"], int(got.headers["webhook-timestamp"]), got.body
    )

    assert got.json["type"] == SUCCEEDED
    assert got.json["data"] == record.to_json()
    assert got.headers["webhook-signature"] == signed["webhook-signature"]
    assert got.headers["content-type"] == "application/json"
    assert hops == ["accepted", "published", "started", "succeeded", "webhook", "webhook-delivered"]
    assert (delivery.state, delivery.type, delivery.parent_id, delivery.principal) == (
        State.SUCCEEDED, "webhook.deliver", task_id, "ada",
    )  # fmt: skip


def test_each_cycle_of_a_dead_letter_is_announced(bench, receiver):
    with running_worker(bench.settings):
        task_id = _submit(bench, receiver, permanent=True)
        bench.finished(task_id)
        _announced(receiver, task_id)
        bench.stores.service(bench.publisher).redrive(task_id, by="ada")
        got = _announced(receiver, task_id, 2)

    assert {each.json["type"] for each in got} == {FAILED}
    assert sorted(each.json["data"]["cycle"] for each in got) == [0, 1]
    assert {each.json["data"]["state"] for each in got} == {"DEAD_LETTERED"}


def test_what_the_broker_gives_up_is_announced_too(bench, receiver):
    task_id = _submit(bench, receiver)
    expired = bench.message(task_id, **{"x-dead-reason": "expired"})
    bench.purge(names.WORK_QUEUE)
    with running_worker(bench.settings):
        bench.publisher.publish(expired, names.DEAD_EXCHANGE, expired.routing_key)
        (got,) = _announced(receiver, task_id)

    assert (got.json["type"], got.json["data"]["state"]) == (FAILED, "EXPIRED")


def test_only_the_events_that_are_asked_for_are_announced(bench, receiver):
    with running_worker(bench.settings, abrupt=True):
        quiet = _submit(bench, receiver, events=(FAILED,))
        loud = _submit(bench, receiver, events=(SUCCEEDED,))
        bench.finished(quiet)
        _announced(receiver, loud)
        bench.drained()

    assert {each.json["data"]["taskId"] for each in receiver.got} == {loud}
    assert "webhook" not in bench.hops(quiet)


POINTS = ("run.completed", "submit.recorded", "submit.published", "submit.marked", "webhook.submitted", "ack.succeeded")


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_dies_at_the_end_of_a_task_and_the_end_is_announced_all_the_same(
    bench, receiver, monkeypatch, tmp_path, point
):
    assert point in crashpoints.POINTS
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={tmp_path / 'died-here'}")
    with running_worker(bench.settings, abrupt=True) as first:
        task_id = _submit(bench, receiver)  # this process has nothing armed
        eventually((tmp_path / "died-here").exists, 30, "the worker died there")
        first.kill()
    with running_worker(bench.settings, abrupt=True):
        got = _announced(receiver, task_id)
        _kinds(bench, task_id, "webhook-delivered")
        bench.drained()

    assert {each.headers["webhook-id"] for each in got} == {webhooks.event_id(bench.store.get(task_id))}
    assert bench.state(task_id) is State.SUCCEEDED
    assert bench.hops(task_id).count("started") == 1
    accepted = [one for one in bench.store.list(principal="ada").items if one.state is not State.REJECTED]
    assert len(accepted) == 2  # the task, and one delivery


def test_the_recorder_dies_before_it_has_submitted_and_the_death_is_announced(bench, receiver, monkeypatch, tmp_path):
    monkeypatch.setenv(crashpoints.VARIABLE, f"recorder.recorded={tmp_path / 'died-here'}")
    with running_worker(bench.settings), running_worker(bench.settings):
        task_id = _submit(bench, receiver, permanent=True)
        got = _announced(receiver, task_id)
        eventually((tmp_path / "died-here").exists, 10, "a worker died there")

    assert len({each.headers["webhook-id"] for each in got}) == 1
    assert got[0].json["type"] == FAILED


def test_a_receiver_that_is_down_is_tried_again_on_the_ladder_with_the_same_id(bench, receiver):
    receiver.statuses = [500, 404, 503]
    with running_worker(bench.settings, abrupt=True):
        task_id = _submit(bench, receiver)
        _kinds(bench, task_id, "webhook-delivered")
        delivery = bench.store.get(bench.store.hops(task_id)[-1]["deliveryId"])

    assert len(receiver.got) == 4
    assert len({each.headers["webhook-id"] for each in receiver.got}) == 1
    assert len({each.body for each in receiver.got}) == 1
    assert delivery.attempt == 4


@pytest.mark.parametrize(
    ("status", "location", "url", "error"),
    [
        (410, "", "", "webhook-gone"),
        (302, "http://169.254.169.254/latest", "", "upstream-redirect"),
        (204, "", "http://169.254.169.254/latest", "host-not-allowed"),
        (204, "", "http://127.0.0.1:{port}/", "host-not-allowed"),
    ],
)
def test_a_delivery_that_cannot_succeed_is_a_dead_letter_and_the_task_stays_what_it_is(
    bench, receiver, status, location, url, error
):
    receiver.statuses, receiver.location = [status], location
    with running_worker(bench.settings):
        task_id = _submit(bench, receiver, url=url.format(port=free_port()))
        _kinds(bench, task_id, "webhook-failed")
        hop = bench.store.hops(task_id)[-1]
        (letter,) = bench.settled_dead_letters(1)

    assert hop["errorType"] == error
    assert letter.task_id == hop["deliveryId"]
    assert bench.state(task_id) is State.SUCCEEDED
    assert len(receiver.got) == (0 if url else 1)


def test_the_end_of_a_cancelled_task_is_announced(bench, receiver):
    deliveries = WebhookSubmitter(bench.submitter, bench.store, bench.celery.dispatch_types)
    service = ControlService(
        bench.store, bench.stores.cancellations, bench.stores.send_now(bench.publisher), ended=deliveries.announce
    )
    waiting, running = _submit(bench, receiver), _submit(bench, receiver, sleepSeconds=30)
    service.cancel(waiting, by="ada")
    with running_worker(bench.settings, abrupt=True):
        (first,) = _announced(receiver, waiting)
        bench.wait_for(running, State.RUNNING)
        service.cancel(running, by="ada")
        (second,) = _announced(receiver, running)
        bench.drained()

    assert {one.json["data"]["state"] for one in (first, second)} == {"CANCELLED"}
    assert {one.json["type"] for one in receiver.got} == {FAILED}
    assert len(receiver.got) == 2


def test_the_end_of_a_task_that_is_cancelled_while_it_waits_is_announced_long_before_its_copy_comes(bench, receiver):
    with running_worker(bench.settings, abrupt=True):
        by_hand, by_job = (_submit_for_later(bench, receiver, message) for message in ("hand", "job"))
        copies = bench.store.get(by_job).wakes_at
        bench.stores.control(bench.publisher).cancel(by_hand, by="cli:ada")  # announces nothing itself, as a command
        _announced(receiver, by_hand)
        job = BulkJob(new_task_id(), JobVerb.CANCEL, TaskFilter(type="echo"), 10, 10.0, "op", 1)
        assert Jobs(bench.stores.redis).add(job)
        _announced(receiver, by_job)
        assert time.time() * 1_000 < copies
        eventually(lambda: not bench.stores.reminders.due(time.time() + 60, 9), 20, "nothing is left to check")

    assert {one.json["data"]["state"] for one in receiver.got} == {"CANCELLED"}
    assert [bench.hops(task_id).count("webhook") for task_id in (by_hand, by_job)] == [1, 1]


def _submit_for_later(bench, receiver, message):
    return bench.submit("echo", {"message": message}, webhook=Webhook(receiver.url), principal="ada", delay=14)


def test_a_gateway_dies_before_it_has_announced_a_cancellation_and_the_sweeper_does(bench, receiver):
    def dies(_):
        raise StoreUnavailable

    service = ControlService(
        bench.store, bench.stores.cancellations, bench.stores.send_now(bench.publisher), ended=dies
    )
    with running_worker(bench.settings, abrupt=True):
        task_id = _submit_for_later(bench, receiver, "x")
        service.cancel(task_id, by="ada")
        (got,) = _announced(receiver, task_id)
        assert time.time() * 1_000 < bench.store.get(task_id).wakes_at

    assert got.json["data"]["state"] == "CANCELLED"


def test_a_copy_of_an_ended_task_that_comes_while_its_type_is_paused_leads_to_the_announcement(bench, receiver):
    with running_worker(bench.settings, abrupt=True):
        task_id = _submit(bench, receiver, events=())  # as if its worker had died before the submission
        bench.finished(task_id)
    bench.stores.redis.run(
        ("HSET", bench.stores.redis.keys.task(task_id).record, "webhook", Webhook(receiver.url).written())
    )
    late = bench.message(task_id, **{WEBHOOK: Webhook(receiver.url).written()})
    Pauses(bench.stores.redis).put(Pause("type:echo", "a test", "ada", 0))
    with running_worker(bench.settings, abrupt=True):
        bench.send_again(late)
        _announced(receiver, task_id)


def test_a_slow_receiver_holds_no_task_up(bench, receiver):
    receiver.pause.clear()
    with running_worker(bench.settings, abrupt=True):
        slow = _submit(bench, receiver)
        others = [bench.submit("echo", {"message": "x"}) for _ in range(20)]
        states = {bench.finished(task_id).state for task_id in (slow, *others)}
        receiver.pause.set()
        _kinds(bench, slow, "webhook-delivered")

    assert states == {State.SUCCEEDED}


def test_a_second_copy_of_an_ended_task_announces_nothing_twice(bench, receiver):
    with running_worker(bench.settings, abrupt=True):
        task_id = _submit(bench, receiver)
        _kinds(bench, task_id, "webhook-delivered")
        bench.send_again(bench.message(task_id))
        bench.drained()

    assert len(receiver.got) == 1
    assert bench.hops(task_id).count("webhook") == 1


def test_a_task_without_a_webhook_is_announced_to_nothing(bench, receiver):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x"})
        record = bench.finished(task_id)
        bench.drained()

    assert (record.webhook, receiver.got) == (None, [])
    assert bench.hops(task_id)[-1] == "succeeded"
