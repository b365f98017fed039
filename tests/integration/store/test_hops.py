"""The hops of a task are what happened, once, and in the order of cause and effect."""

import uuid

from dispatch.protocol import names
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.record import State
from dispatch.protocol.retry import Dead
from dispatch.store.scripts import Script
from support.case import FAILURE

#: What the gateway knows of a confirmed publish.
CONFIRMED = {"exchange": names.TASK_EXCHANGE, "routingKey": "robot.task.dispatch.echo", "confirmMs": 1.5}


def cold(case):
    """As after a restart of Redis: it knows none of the handle's scripts."""
    own = {
        name: Script(name, f"{script.source}\n-- {uuid.uuid4()}") for name, script in case.store._redis._scripts.items()
    }
    case.store._redis._scripts = own
    case.store._redis._by_sha = {script.sha: script for script in own.values()}


def recorded(case, *, key=None):
    case.store.accept(case.message, max_attempts=4, idempotency_key=key)


def marked(case, *, key=None):
    assert case.store.mark_published(
        case.message, queue=names.WORK_QUEUE, max_attempts=4, idempotency_key=key, **CONFIRMED
    )


def hop(case, kind):
    """The one hop of a kind, without what every hop has."""
    (found,) = [hop for hop in case.store.hops(case.task_id) if hop["kind"] == kind]
    return {name: value for name, value in found.items() if name not in {"seq", "at", "kind", "spanId"}}


def test_a_redis_that_knows_no_script_carries_each_transition_out_once(case):
    cold(case)
    recorded(case, key="k")
    cold(case)
    marked(case, key="k")
    record = case.record()

    assert case.kinds() == ["accepted", "published"]
    assert (record.revision, record.state) == (2, State.QUEUED)
    assert hop(case, "published") == CONFIRMED


def test_a_worker_that_is_faster_than_the_gateway_notes_the_publish_first(case):
    recorded(case)
    ticket = case.run()
    early = case.store.hops(case.task_id)
    case.claims.complete(case.message, ticket, {}, 4)
    ended = case.record()
    marked(case)
    marked(case)
    late = case.store.hops(case.task_id)

    assert [hop["kind"] for hop in late] == ["accepted", "published", "started", "succeeded"]
    assert hop(case, "published") == CONFIRMED
    assert [(hop["seq"], hop["at"]) for hop in late[:3]] == [(hop["seq"], hop["at"]) for hop in early]
    assert (early[1]["exchange"], early[1]["routingKey"]) == (CONFIRMED["exchange"], CONFIRMED["routingKey"])
    assert case.record() == ended  # a client that has read the end has read everything


def test_a_repeated_request_that_finds_the_task_under_way_leaves_the_publish_as_it_was_noted(case):
    recorded(case)
    case.run()
    noted = hop(case, "published")
    assert case.store.mark_published(
        case.message, queue="q", max_attempts=4, idempotency_key=None, sent_before=True, exchange="robot.delay.3",
        routingKey="x", until="2026-11-24T02:36:00.000Z",
    )  # fmt: skip

    assert hop(case, "published") == noted
    assert case.kinds() == ["accepted", "published", "started"]


def test_a_dead_letter_that_the_broker_made_before_the_gateways_mark_was_published_first(case):
    recorded(case)
    case.dead_letters.record(case.message, reason=Reason.EXPIRED, max_attempts=4)
    marked(case)

    assert case.kinds() == ["accepted", "published", "dead-lettered"]
    assert hop(case, "published") == CONFIRMED


def test_a_waiting_task_has_its_hops_in_its_record_and_a_claim_makes_a_list_of_them(case):
    def listed():
        return case.redis.lrange(case.stores.redis.keys.task(case.task_id).hops, 0, -1)

    recorded(case)
    accepted = case.store.hops(case.task_id)
    marked(case)
    waiting, none = case.store.hops(case.task_id), listed()
    case.run()
    running = case.store.hops(case.task_id)

    assert ([hop["kind"] for hop in accepted], none) == (["accepted"], [])
    assert [(hop["seq"], hop["kind"]) for hop in waiting] == [(1, "accepted"), (2, "published")]
    assert waiting[:1] == accepted
    assert running[:2] == waiting
    assert len(listed()) == 3
    assert case.redis.object("encoding", case.stores.redis.keys.task(case.task_id).record) == "listpack"


def test_a_way_that_is_not_the_usual_one_is_kept(case):
    way = {"exchange": "robot.delay.3", "routingKey": "robot.task.dispatch.echo", "confirmMs": 2.0}
    recorded(case)
    case.store.mark_published(case.message, queue="robot.delay.q.3", max_attempts=4, idempotency_key=None, **way)

    assert hop(case, "published") == way


def test_a_task_id_that_is_used_again_has_no_hops_of_a_record_that_is_gone(case):
    recorded(case)
    case.run()
    case.redis.delete(case.stores.redis.keys.task(case.task_id).record)
    recorded(case)

    assert case.kinds() == ["accepted"]


def test_a_lost_run_and_one_that_was_stopped_leave_a_hop(case):
    case.accept()
    case.run()
    case.lapse()
    stopped = case.run()
    case.claims.release(case.message, stopped, names.WORK_QUEUE)
    case.run()

    assert case.kinds()[2:] == ["started", "lost", "started", "stopped", "started"]
    assert hop(case, "lost") == {"worker": "w@test", "attempt": 1}
    assert hop(case, "stopped") == {"worker": "w@test", "attempt": 1, "queue": names.WORK_QUEUE}


def test_a_run_that_was_lost_is_noted_also_when_no_worker_claims_its_copy_again(case):
    case.accept()
    case.run()
    case.lapse()
    case.dead_letters.record(case.message, reason=Reason.DELIVERY_LIMIT, max_attempts=4)

    assert case.kinds()[2:] == ["started", "lost", "dead-lettered"]


def test_a_failed_attempt_has_its_reason(case):
    case.accept()
    case.decide(case.run())

    assert hop(case, "failed") == {"errorType": FAILURE.type, "message": FAILURE.message, "attempt": 1}


def test_a_task_that_succeeded_is_done_to_100_percent(case):
    def ended(*reported):
        case.wipe()
        case.accept()
        ticket = case.run()
        for progress in reported:
            case.claims.progress(case.task_id, ticket.fence, progress)
        case.claims.complete(case.message, ticket, {}, 4)
        return case.record().progress

    assert ended() is None
    assert ended({"percent": 10, "message": "on its way"}) == {"percent": 100, "message": ""}
    assert ended({"percent": 100, "message": "docked"}) == {"percent": 100, "message": "docked"}


def test_a_task_that_failed_keeps_how_far_it_came(case):
    case.accept()
    ticket = case.run()
    case.claims.progress(case.task_id, ticket.fence, {"percent": 10, "message": "on its way"})
    copy = case.decide(ticket, Dead(Reason.PERMANENT)).copy
    case.handovers.hand_over(copy, owner=ticket.owner)

    assert case.record().progress == {"percent": 10, "message": "on its way"}


def test_a_discarded_task_waits_in_no_queue(case):
    case.accept()
    case.die()
    before = case.record().queue
    case.dead_letters.discard(case.task_id, by="op")

    assert (before, case.record().queue) == (names.DEAD_QUEUE, None)
