"""What a claim, a completion, a progress and a renewal write; what their answers mean."""

import json

from dispatch.config.settings import load
from dispatch.protocol.copies import parked_copy
from dispatch.store.claims import ClaimAnswer, Claimed, Claims, Renewed, Ticket
from support.cases import each
from support.unit_fakes import FakeRedis, task_message

SETTINGS = load({})
TICKET, OTHER = Ticket("owner", "fence", "w@test"), Ticket("owner-2", "fence-2", "w@test")
RECORD = ("robot:task:{t-1}", "robot:claim:{t-1}", "robot:hops:{t-1}", "robot:message:{t-1}")
UNTIMELY = ("ZREM", "robot:waiting", "t-1")


def claims(**answers):
    redis = FakeRedis(**answers)
    return Claims(redis, SETTINGS), redis


def test_a_claim_names_the_copy_and_the_run():
    made, redis = claims(claim=[["RUN"]])
    claimed = made.claim(task_message(**{"x-cycle": 1}), TICKET, 4)
    script, waits_no_longer = redis.commands

    assert claimed == Claimed(ClaimAnswer.RUN)
    assert script[:10] == ("claim", RECORD, 1, 3, 2, "owner", "fence", 30_000, 3, "w@test")
    assert json.loads(script[10]) == {"kind": "started", "worker": "w@test", "attempt": 2}
    assert json.loads(script[11]) == {"kind": "published"}
    assert waits_no_longer == UNTIMELY


@each("answer", [answer for answer in ClaimAnswer if answer is not ClaimAnswer.ROUTE])
def test_each_answer_of_the_script_is_known(answer):
    made, _ = claims(claim=[[answer.value]])

    assert made.claim(task_message(), TICKET, 4) == Claimed(answer)


def test_a_copy_that_was_decided_before_comes_with_the_decided_one():
    copy = parked_copy(task_message())
    made, _ = claims(claim=[["ROUTE", copy.to_json()]])

    assert made.claim(task_message(), TICKET, 4) == Claimed(ClaimAnswer.ROUTE, copy)


def test_a_claim_of_a_lost_record_rebuilds_it_for_the_attempts_of_its_type():
    made, redis = claims(claim=["MISSING", ["RUN"]])
    made.claim(task_message(), TICKET, 2)
    seed = json.loads(redis.trips[1][4][-1].partition("\n")[0])

    assert seed["maxAttempts"] == 2


@each(("answer", "recorded"), [("OK", True), ("REFUSED", False)])
def test_a_completion_is_recorded_unless_the_fence_refuses(answer, recorded):
    made, redis = claims(complete=answer)
    done = made.complete(task_message(), TICKET, {"a": 1}, 4)
    script, uncounted, due, waiting = redis.trips[0]

    assert done is recorded
    assert script[:6] == ("complete", RECORD, "fence", "owner", '{"a":1}', 86_400_000)
    assert uncounted == ("use", ("robot:usage:ada",), "t-1", "", 0)
    assert (due, waiting) == (("ZREM", "robot:due", "t-1"), UNTIMELY)


def test_after_a_refusal_the_sweeper_goes_on_checking():
    made, redis = claims(complete="REFUSED")
    made.complete(task_message(), TICKET, {}, 4)
    again, counted = redis.trips[1]

    assert (again[:3], again[4]) == (("ZADD", "robot:due", "NX"), "t-1")
    assert counted[:4] == ("use", ("robot:usage:ada",), "t-1", "open")


@each(("answer", "stop"), [("OK", False), ("CANCEL", True), ("REFUSED", False)])
def test_progress_answers_whether_to_stop(answer, stop):
    made, redis = claims(progress=answer)

    assert made.progress("t-1", "fence", {"percent": 5, "message": "x"}) is stop
    assert redis.commands[0][:4] == ("progress", RECORD, "fence", '{"percent":5,"message":"x"}')
    assert json.loads(redis.commands[0][4]) == {"kind": "progress", "percent": 5, "message": "x"}


def test_asking_writes_no_progress_and_no_hop():
    made, redis = claims()
    made.progress("t-1", "fence", None)

    assert redis.commands == [("progress", RECORD, "fence", "", "")]


def test_leases_are_renewed_in_one_round_trip():
    made, redis = claims(renew=["OK", "LOST"])
    lost = made.renew({TICKET: (task_message(), 4), OTHER: (task_message(), 4)}).lost

    assert lost == [OTHER]
    assert [command[2:] for command in redis.trips[0]] == [
        ("owner", "fence", 30_000, ""),
        ("owner-2", "fence-2", 30_000, ""),
    ]
    assert len(redis.trips) == 1


def test_a_run_that_is_to_stop_comes_with_the_seconds_since_the_request():
    made, _ = claims(renew=[["CANCEL", 2_500], "OK"])
    renewed = made.renew({TICKET: (task_message(), 4), OTHER: (task_message(), 4)})

    assert renewed == Renewed([], {TICKET: 2.5})


def test_a_run_whose_record_is_lost_goes_on_and_its_record_comes_back():
    made, redis = claims(renew=["MISSING", "OK", "OK"])
    lost = made.renew({TICKET: (task_message(), 2), OTHER: (task_message(id="t-2"), 4)}).lost
    seed = json.loads(redis.trips[1][4][-1].partition("\n")[0])

    assert lost == []
    assert (seed["maxAttempts"], redis.trips[1][4][2:5]) == (2, ("owner", "fence", 30_000))


def test_without_deliveries_redis_is_not_asked():
    made, redis = claims()

    assert made.renew({}) == Renewed()
    assert redis.trips == []


def test_a_released_lease_names_the_queue_that_has_the_copy_again():
    made, redis = claims()
    made.release(task_message(), TICKET, "robot.task.q")

    ((*script, stopped),) = redis.commands

    assert script == ["release", RECORD, "owner", "fence", "robot.task.q"]
    assert json.loads(stopped) == {"kind": "stopped", "worker": "w@test", "attempt": 2, "queue": "robot.task.q"}


@each(("there", "leased"), [(1, True), (0, False)])
def test_a_task_is_leased_while_its_lease_lives(there, leased):
    made, redis = claims(EXISTS=there)

    assert made.leased("t-1") is leased
    assert redis.commands == [("EXISTS", "robot:claim:{t-1}")]
