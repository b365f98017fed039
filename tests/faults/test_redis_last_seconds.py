"""P1, P3, P4: Redis is killed while its disk is busy, and comes back without what it had acknowledged last."""

import contextlib

import pytest

from dispatch.maintenance.restart_watch import RestartWatch
from dispatch.protocol import names
from dispatch.protocol.record import State
from support.case import Case
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import each_pool, open_bench, running_worker

TASK = {"type": "echo", "payload": {"message": "x"}}


@pytest.fixture
def bench(own):
    with open_bench(own) as made:
        yield made


@each_pool
@pytest.mark.parametrize("lost", ["their runs", "their acceptance, too"])
def test_tasks_whose_end_was_lost_have_ended_again_and_none_ran_twice(bench, server, own, pool, lost):
    written = server.written()
    ids = [bench.submit(**TASK) for _ in range(30)]
    if lost == "their runs":
        written = server.written()
    with running_worker(own, abrupt=True, pool=pool) as worker:
        results = {task_id: bench.finished(task_id).result for task_id in ids}
        bench.drained(names.WORK_QUEUE)
        server.lose_since(written)
        ended = {task_id: bench.finished(task_id, 30) for task_id in ids}
        eventually(lambda: bench.store.usage.read("local").open == 0, 10, "none counts as open any longer")
        again = bench.finished(bench.submit(**TASK))
        eventually(lambda: '"Redis has started again' in worker.text(), 10)

    assert {task_id: record.result for task_id, record in ended.items()} == results
    assert {record.state for record in [*ended.values(), again]} == {State.SUCCEEDED}
    assert [bench.hops(task_id).count("succeeded") for task_id in ids] == [1] * len(ids)
    assert [bench.runs(task_id) for task_id in ids] == [1] * len(ids)


@each_pool
@pytest.mark.parametrize("lease", [3.0, 60.0])  # claimed again by a renewal, and by what records the outcome
def test_a_run_whose_claim_was_lost_ends_as_it_would_have_and_is_not_run_again(bench, server, own, pool, lease):
    slow = own.model_copy(update={"lease": lease})
    drills = [{}, {"failTimes": 1}, {"permanent": True}]
    ids = [bench.submit("echo", {"message": "x", "sleepSeconds": 4, **drill}) for drill in drills]
    written = server.written()
    with running_worker(slow, abrupt=True, pool=pool) as worker:
        for task_id in ids:
            bench.wait_for(task_id, State.RUNNING)
        server.lose_since(written)
        unknown = {bench.state(task_id) for task_id in ids}
        ended = [bench.finished(task_id, 60) for task_id in ids]
        bench.drained(names.WORK_QUEUE, names.LEASE_QUEUE, names.rung_queue("1m"))
        log = worker.text()

    assert unknown <= {State.QUEUED, State.RUNNING}
    assert [(record.state, record.attempt) for record in ended] == [
        (State.SUCCEEDED, 1),
        (State.SUCCEEDED, 2),
        (State.DEAD_LETTERED, 1),
    ]
    assert [bench.hops(task_id).count("started") for task_id in ids] == [1, 2, 1]
    assert (log.count("task succeeded"), log.count("attempt failed")) == (2, 2)
    assert ("claimed again" in log) == (lease == 3.0)


def test_a_dead_letter_whose_record_was_lost_is_dead_again_and_can_be_redriven(bench, server, own):
    with running_worker(own, abrupt=True), gateway(own) as http:
        written = server.written()
        ids = [bench.submit("echo", {"message": "x", "permanent": True}) for _ in range(5)]
        for task_id in ids:
            bench.finished(task_id)
        bench.drained(names.RECORDER_QUEUE)
        server.lose_since(written)
        ended = [bench.finished(task_id, 60) for task_id in ids]
        listed = eventually(lambda: _listed(http, len(ids)), 20, "all are listed")
        redriven = http.post(f"/v1/dead-letters/{ids[0]}/redrive")
        bench.wait_for(ids[0], State.DEAD_LETTERED, 30)
        letters = bench.settled_dead_letters(len(ids), 30)

    assert [(record.state, record.dead_reason) for record in ended] == [(State.DEAD_LETTERED, "permanent")] * len(ids)
    assert sorted(letter["taskId"] for letter in listed) == sorted(ids)
    assert redriven.status_code == 202
    assert sorted(letter.task_id for letter in letters) == sorted(ids)


def _listed(http, count):
    items = http.get("/v1/dead-letters").json["items"]
    return items if len(items) == count else None


def test_an_accepted_task_that_was_lost_is_there_again_and_its_key_is_still_its_own(bench, server, own):
    with gateway(own) as http:
        http.post("/v1/tasks", json=TASK)
        written = server.written()
        headers = {"Idempotency-Key": "one"}
        accepted = [http.post("/v1/tasks", json=TASK, headers=each) for each in ({}, {}, headers)]
        ids = [answer.json["taskId"] for answer in accepted]
        server.lose_since(written)
        eventually(lambda: all(bench.state(task_id) is State.QUEUED for task_id in ids), 20, "they are there again")
        repeat = http.post("/v1/tasks", json=TASK, headers=headers)
        with running_worker(own, abrupt=True):
            ended = [bench.finished(task_id) for task_id in ids]

    assert [answer.status_code for answer in accepted] == [202] * 3
    assert (repeat.status_code, repeat.json["taskId"], repeat.headers["Idempotent-Replayed"]) == (202, ids[-1], "true")
    assert [record.state for record in ended] == [State.SUCCEEDED] * 3


@pytest.fixture
def case(own):
    with contextlib.closing(Case(own)) as made:
        yield made


@pytest.fixture
def watch(case):
    made = RestartWatch(case.stores.redis)
    made.step()
    return made


def test_a_confirm_alone_is_lost_and_the_sweeper_does_not_reject_the_task(case, server, watch):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    written = server.written()
    case.store.mark_published(case.message, queue="q", max_attempts=4, idempotency_key=None)
    server.lose_since(written)
    before = case.record().published
    eventually(lambda: watch.step() or case.record().published, 10, "the confirm is repeated")
    impatient = case.settings.model_copy(update={"unpublished_grace": 0.0})
    case.stores.sweeper(None, impatient).sweep()

    assert (before, case.record().state, case.kinds()) == (False, State.QUEUED, ["accepted", "published"])


def test_a_sweeper_waits_with_rejections_until_every_process_has_repeated_its_confirms(case, server, watch):
    impatient = case.settings.model_copy(update={"unpublished_grace": 3.0})
    sweeper = case.stores.sweeper(None, impatient, steady=watch.steady)
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    eventually(lambda: case.stores.reminders.clock() - case.record().updated_at / 1_000 > 3, 10, "its grace is over")
    server.lose_since(server.written())
    eventually(lambda: sweeper.sweep() is not None, 10)
    case.stores.reminders.set(case.task_id, 0.0)
    sweeper.sweep()  # before the watch has looked
    unseen = case.record().state
    watch.step()
    case.stores.reminders.set(case.task_id, 0.0)
    sweeper.sweep()
    waited = case.record().state
    eventually(lambda: sweeper.sweep() is not None and case.record().state is State.REJECTED, 20, "then it is rejected")

    assert (unseen, waited) == (State.SCHEDULED, State.SCHEDULED)


def _moves(case):
    """What may stand in a record when its last seconds are gone: how it came there, and the copy that ended."""
    ticket = case.run()
    yield "running", case.message
    case.claims.release(case.message, ticket, "q")
    yield "given back", case.message
    ticket = case.run()
    failed = case.decide(ticket)
    yield "failed, undecided where to", failed.copy.message
    case.handovers.hand_over(failed.copy, owner=ticket.owner)
    yield "waiting", failed.copy.message
    ticket = case.run(failed.copy.message)
    yield "running again", failed.copy.message
    waits = case.wait(ticket, failed.copy.message)
    case.handovers.hand_over(waits.copy, owner=ticket.owner)
    yield "between two steps", waits.copy.message
    dead = case.die(waits.copy.message)
    yield "dead, and redriven since", dead.with_headers(**{"x-cycle": 1, "x-seq": 0})


MOVES = [
    "running",
    "given back",
    "failed, undecided where to",
    "waiting",
    "running again",
    "between two steps",
    "dead, and redriven since",
]


@pytest.mark.parametrize("at", MOVES)
def test_an_end_is_repeated_whatever_the_record_was_before(case, server, watch, at):
    case.accept()
    copy = next(message for name, message in _moves(case) if name == at)
    written = server.written()
    case.lapse()  # which is lost as well: then a run that is over has the lease
    ticket = case.run(copy)
    assert case.claims.complete(copy, ticket, {"answer": 1}, 4)
    server.lose_since(written)
    before = case.record().state
    eventually(lambda: watch.step() or case.record().state is State.SUCCEEDED, 10, "its end is repeated")
    watch.step()
    record = case.record()

    assert before is not State.SUCCEEDED
    assert (record.result, record.cycle, record.lost_runs) == ({"answer": 1}, copy.cycle, 0)
    assert case.kinds().count("succeeded") == 1
    assert case.claim(copy).answer.value == "DONE"
    assert case.redis.exists(f"{case.prefix}claim:{{{case.task_id}}}") == 0
    assert case.redis.ttl(f"{case.prefix}task:{{{case.task_id}}}") > 0


def test_what_redis_did_not_lose_is_left_as_it_is(case, server, watch):
    """Its end, a death, a redrive since: repeated on a Redis that has it all."""
    case.accept()
    ticket = case.run()
    case.claims.complete(case.message, ticket, {"answer": 1}, 4)
    other = Case(case.settings)
    other.store, other.stores, other.claims = case.store, case.stores, case.claims
    with contextlib.closing(other):
        other.accept()
        dead = other.die()
        case.dead_letters.record(dead, reason="permanent", max_attempts=4)
        left = [(each.store.whole(each.task_id), each.kinds()) for each in (case, other)]
        letters = case.redis.hget(f"{case.prefix}task:{{{other.task_id}}}", "letters")
        server.lose_since(server.written())
        eventually(lambda: watch.step() is None, 10)

        assert [(each.store.whole(each.task_id), each.kinds()) for each in (case, other)] == left
        assert case.redis.hget(f"{case.prefix}task:{{{other.task_id}}}", "letters") == letters
