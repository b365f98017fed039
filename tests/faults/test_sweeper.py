"""P1, P2, P4: what has made no progress for too long, and what the broker itself gives up."""

from urllib.parse import urlsplit

from kombu import Connection
from pydantic import SecretStr

import topology
from dispatch.broker import definitions, provision
from dispatch.protocol import names
from dispatch.protocol.copies import next_copy
from dispatch.protocol.record import State
from dispatch.protocol.retry import Failure, FailureKind, Retry
from dispatch.store.claims import Ticket
from dispatch.telemetry import metrics
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import open_bench, running_worker


def _unpublished(bench):
    """A record whose gateway died before it could publish."""
    task_id = bench.submit("echo", {"message": "x"})
    message = bench.message(task_id)
    bench.purge(names.WORK_QUEUE)
    keys = bench.stores.redis.keys.task(task_id)
    bench.stores.redis.run(("DEL", keys.record, keys.hops))
    bench.store.accept(message, max_attempts=4, idempotency_key=None)
    return task_id, message


def test_a_record_that_was_never_published_is_rejected_and_its_late_copy_does_not_run(bench):
    task_id, message = _unpublished(bench)
    with running_worker(bench.settings, abrupt=True):
        record = bench.wait_for(task_id, State.REJECTED)
        bench.send_again(message)
        bench.drained()

    assert record.error.type == "publish-unconfirmed"
    assert "started" not in bench.hops(task_id)
    assert bench.state(task_id) is State.REJECTED


def test_a_copy_that_a_worker_has_claimed_is_never_rejected(settings):
    patient = settings.model_copy(update={"unpublished_grace": 20.0})
    with open_bench(patient) as bench:
        task_id, message = _unpublished(bench)
        bench.send_again(message)  # the publish got through, the gateway died before it could record that
        with running_worker(patient, abrupt=True), sweeping(bench, unpublished_grace=0.01) as sweep:
            eventually(lambda: bench.state(task_id) is not State.SCHEDULED, 20, "a worker has it", 0.005)
            sweep(task_id)
            record = bench.finished(task_id)
            sweep(task_id)

    assert record.state is State.SUCCEEDED
    assert bench.state(task_id) is State.SUCCEEDED


SOON = {"queue_ttl": 0.1, "sweep_margin": 0.1, "lease": 0.5}


def test_a_broker_that_lost_its_queue_gets_the_task_back_once_however_many_sweep(bench):
    once, twice, late = (bench.submit("echo", {"message": "x"}) for _ in range(3))
    bench.purge(names.WORK_QUEUE)
    with sweeping(bench, 4, **SOON) as sweep:
        eventually(lambda: sweep(once) or "resent" in bench.hops(once), 20, "it is sent again")
        sent = bench.depth(names.WORK_QUEUE)
        for time in (1, 2):
            bench.purge(names.WORK_QUEUE)
            eventually(lambda time=time: sweep(twice) or bench.hops(twice).count("resent") >= time, 20, "again")
        bench.send_again(bench.message(once))  # nothing was lost, the first copies were only slow
        bench.send_again(bench.message(late))
        eventually(lambda: sweep(late) or "resent" in bench.hops(late), 20, "sent again, too")
        eventually(lambda: sweep(once) or bench.hops(once).count("resent") >= 2, 20, "its second copy was purged above")
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(task_id) for task_id in (once, twice, late)]
        bench.drained()

    assert sent == 1
    assert [(record.state, record.attempt) for record in records] == [(State.SUCCEEDED, 1)] * 3
    # On a busy machine a sweep may come so late that the next loses patience, too: a copy more, and still one a resend.
    assert [record.seq for record in records] == [bench.hops(record.task_id).count("resent") for record in records]
    assert [bench.hops(record.task_id).count("started") for record in records] == [1, 1, 1]


def test_a_retry_that_the_broker_lost_comes_back_as_the_attempt_that_it_was(bench):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "w", "failTimes": 1})
        bench.wait_for(task_id, State.RETRY_WAIT)
        bench.purge(names.rung_queue("1m"))
        with sweeping(bench, **SOON) as sweep:
            eventually(lambda: sweep(task_id) or bench.state(task_id) is not State.RETRY_WAIT, 20, "it is sent again")
        record = bench.finished(task_id)

    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)


def test_what_the_broker_itself_gives_up_has_its_reason(bench):
    changes = {"queue_ttl": 3.0, "delivery_limit": 2}
    changed = bench.settings.model_copy(update=changes)
    provision.apply_policies(topology.broker_map(changed), changed)
    returned = bench.submit("echo", {"message": "x"})
    with Connection(bench.settings.broker("admin")) as connection:
        for _ in range(3):  # as if three consumers had died over it
            connection.default_channel.basic_reject(_get(connection).delivery_tag, requeue=True)
    late = bench.submit("echo", {"message": "x"})
    eventually(lambda: bench.depth(names.DEAD_QUEUE) == 2, 20, "the broker dead-letters both")
    with running_worker(bench.settings):
        records = [bench.finished(task_id) for task_id in (returned, late)]
    dead_letters = bench.stores.dead_letters.list().items

    assert [(record.state, record.dead_reason) for record in records] == [
        (State.DEAD_LETTERED, "delivery-limit"),
        (State.EXPIRED, "expired"),
    ]
    assert {record.status for record in records} == {"FAIL"}
    assert {dead_letter.task_id for dead_letter in dead_letters} == {returned, late}


def _get(connection):
    return eventually(lambda: connection.default_channel.basic_get(names.WORK_QUEUE), 5, "it is there")


def test_with_least_privilege_a_decided_retry_is_still_sent_by_the_sweeper(bench, servers):
    """Its copy goes to a rung, where the user that sends dead letters again may not write."""
    roles = [role.name for role in definitions.ROLES]
    address = urlsplit(bench.settings.broker("admin"))
    users = {role: f"{role}-{address.path[1:]}" for role in roles}
    urls = {
        f"{role}_broker_url": SecretStr(f"amqp://{user}:pw@{address.hostname}:{address.port}{address.path}")
        for role, user in users.items()
    }
    own = bench.settings.model_copy(update={**urls, "apply_topology": False})
    with servers.management() as api:
        api.post(
            "/api/definitions", json=definitions.definitions(topology.broker_map(own), own, users=True)
        ).raise_for_status()
        try:
            task_id = bench.submit("echo", {"message": "x", "failTimes": 1})
            _die_after_the_decision(bench, task_id)
            with running_worker(own, abrupt=True):
                record = bench.finished(task_id, 30)
                bench.drained()
        finally:
            api.post("/api/users/bulk-delete", json={"users": list(users.values())}).raise_for_status()

    assert (record.state, record.attempt) == (State.SUCCEEDED, 2)
    assert bench.hops(task_id).count("started") == 2


def _die_after_the_decision(bench, task_id):
    """A worker and its broker's copy are gone, only the decision is recorded."""
    bench.purge(names.WORK_QUEUE)
    message, ticket = bench.message(task_id), Ticket("owner", "fence", "w@gone")
    claims, handovers = bench.stores.claims, bench.stores.handovers
    claims.claim(message, ticket, 4)
    failure, decision = Failure(FailureKind.RETRYABLE, "boom", "it broke"), Retry(bench.settings.ladder.rungs[0])
    copy = next_copy(message, failure, decision, 1)
    handovers.decide(message, ticket, copy, failure, decision, max_attempts=4)


def _logged(caplog):
    return [each.msg["event"] for each in caplog.records if each.name == "dispatch.maintenance.sweeper"]


def test_each_thing_that_it_settles_is_counted_and_logged(bench, caplog):
    sent = {action: _swept(action) for action in ("rejected", "published", "resent", "lost")}
    never, _ = _unpublished(bench)
    decided, silent, empty = (bench.submit("echo", {"message": "x", "failTimes": 1}) for _ in range(3))
    _die_after_the_decision(bench, decided)
    bench.store._redis.run(("DEL", bench.stores.redis.keys.task(empty).message))
    with sweeping(bench, unpublished_grace=0.1, **SOON) as sweep:
        for task_id, event in (
            (never, "swept: never published"),
            (decided, "swept: decided copy published"),
            (silent, "swept: in no queue any more, sent again"),
            (empty, "swept: lost, its record has no message"),
        ):
            eventually(lambda task_id=task_id, event=event: sweep(task_id) or event in _logged(caplog), 20, event)
    counted = {action: _swept(action) - before for action, before in sent.items()}

    assert counted["rejected"] == 1
    assert min(counted.values()) >= 1


def _swept(action):
    return metrics.registry().get_sample_value("robot_sweeper_actions_total", {"action": action}) or 0
