"""What the records answer to dead letters, redrives and lists, against a real Redis."""

import contextlib
import dataclasses

import pytest

from dispatch.deadletters.groups import survey_groups
from dispatch.errors import StoreUnavailable
from dispatch.protocol.copies import dead_copy, redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason, fingerprint_of
from dispatch.protocol.fingerprints import fingerprint
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.mending import Mend, mended
from dispatch.protocol.record import ErrorInfo, State
from dispatch.protocol.retry import Dead
from dispatch.protocol.sealing import UNSEALED
from dispatch.store.dead_letters import DeadLetterAnswer, Death
from dispatch.store.handovers import DecisionAnswer
from dispatch.store.scripts import scripts
from support.case import Case
from support.stores import Stores


def test_the_tap_agrees_with_the_router_in_either_order(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket, Dead(Reason.PERMANENT)).copy
    first = case.dead_letters.record(copy.message, reason="permanent", max_attempts=4)
    case.handovers.hand_over(copy, owner=ticket.owner)
    second = case.dead_letters.record(copy.message, reason="permanent", max_attempts=4)

    assert (first, second) == (DeadLetterAnswer.OK, DeadLetterAnswer.AGAIN)
    assert case.record().state is State.DEAD_LETTERED
    assert case.kinds().count("dead-lettered") == 1


def test_the_first_dead_letter_of_a_death_is_kept_and_any_further_one_is_looked_at(case):
    dead_letter = case.die()
    burials = [case.dead_letters.record(dead_letter, reason="permanent", max_attempts=4) for _ in range(2)]

    assert burials == [DeadLetterAnswer.DONE, DeadLetterAnswer.AGAIN]
    assert set(case.dead_letters.flagged()) == {case.task_id}


def _of_another(message):
    """The same message, of another task."""
    return message.with_headers(id=new_task_id())


def test_deaths_that_are_recorded_together_have_the_answers_that_each_has_by_itself(case):
    dead_letter, unknown, odd = case.die(), _of_another(case.message), _of_another(case.copy(seq=2_000_000))
    running = dataclasses.replace(case.message, headers=_of_another(case.message).headers)
    case.store.accept(running, max_attempts=4, idempotency_key=None)
    case.claims.claim(running, case.ticket(), 4)
    deaths = [Death(each, "permanent", 4) for each in (dead_letter, unknown, running, odd, unknown)]
    answers = case.dead_letters.record_many(deaths)
    again = [case.dead_letters.record(*death[:1], reason=death.reason, max_attempts=4) for death in deaths]

    done, ok, busy, foreign, further = (DeadLetterAnswer(each) for each in ("DONE", "OK", "BUSY", "FOREIGN", "AGAIN"))
    assert answers == [done, ok, busy, foreign, further]
    assert again == [further, further, busy, foreign, further]
    assert set(case.listed()) == {dead_letter.task_id, unknown.task_id}
    assert set(case.dead_letters.flagged()) == {dead_letter.task_id, unknown.task_id}
    assert case.store.usage.read("ada").dead == 2


def test_an_expired_copy_does_not_bury_a_task_that_lives_on(case):
    case.accept()

    def bury(message):
        return case.dead_letters.record(message, reason="expired", max_attempts=4)

    ticket = case.run()
    assert bury(case.message) is DeadLetterAnswer.BUSY
    copy = case.decide(ticket).copy
    assert bury(case.message) is DeadLetterAnswer.STALE
    case.handovers.hand_over(copy, owner=ticket.owner)
    assert bury(case.message) is DeadLetterAnswer.STALE
    case.claims.complete(copy.message, case.run(copy.message), {}, 4)
    assert bury(copy.message) is DeadLetterAnswer.OLD
    assert set(case.dead_letters.flagged()) == {case.task_id}


def test_a_dead_letter_that_the_tap_has_not_seen_yet_can_be_redriven(case):
    case.accept()
    dead_letter = dead_copy(case.message, Reason.EXPIRED, "too late").message
    decided = case.dead_letters.redrive(dead_letter, redriven_copy(dead_letter), by="me", max_attempts=4)

    assert decided.answer is DecisionAnswer.OK
    assert decided.copy.message.cycle == 1
    assert case.kinds()[-2:] == ["dead-lettered", "redriven"]


def test_a_dead_letter_that_the_tap_records_meanwhile_is_redriven_and_not_taken_for_a_second_one(case, monkeypatch):
    dead_letter = dead_copy(case.message, Reason.EXPIRED, "too late").message
    record = case.dead_letters.record

    def twice(*arguments, **options):
        record(*arguments, **options)  # the recorder's
        return record(*arguments, **options)

    monkeypatch.setattr(case.dead_letters, "record", twice)
    decided = case.dead_letters.redrive(dead_letter, redriven_copy(dead_letter), by="me", max_attempts=4)

    assert (decided.answer, decided.copy is not None) == (DecisionAnswer.OK, True)
    assert (case.record().state, case.record().cycle) == (State.SCHEDULED, 1)


def test_a_death_is_recorded_once_though_redis_lacks_a_script_that_goes_along(case):
    dead_letter = case.die()
    case.redis.script_flush()
    case.redis.script_load(scripts()["record_dead"].source)
    answer = case.dead_letters.record(dead_letter, reason="permanent", max_attempts=4)

    assert answer is DeadLetterAnswer.DONE
    assert case.task_id not in case.dead_letters.flagged()


def test_a_dead_letter_whose_task_runs_is_not_redriven(case):
    case.accept()
    case.run()
    decided = case.dead_letters.redrive(case.message, redriven_copy(case.message), by="me", max_attempts=4)

    assert decided.answer is DecisionAnswer.BUSY
    assert case.record().state is State.RUNNING


def test_a_redrive_is_decided_once_and_may_be_taken_back(case):
    dead_letter = case.die()
    copies = [redriven_copy(dead_letter), redriven_copy(dead_letter)]
    words = [case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4).answer for copy in copies]
    case.dead_letters.undo_redrive(copies[0])

    assert words == [DecisionAnswer.OK, DecisionAnswer.ROUTE]
    assert (case.record().state, case.record().cycle) == (State.DEAD_LETTERED, 0)
    assert case.dead_letters.redrive(dead_letter, copies[0], by="me", max_attempts=4).answer is DecisionAnswer.OK


def test_a_redrive_whose_payload_makes_another_concurrency_key_shows_that_one_until_it_is_undone(case):
    case.message = case.message.with_headers(**{"x-concurrency-key": "robot-1"})
    dead_letter = case.die()
    mend = Mend({"robot": 2}, key="robot-2")
    copy = redriven_copy(dead_letter)
    copy = dataclasses.replace(copy, message=mended(copy.message, mend, UNSEALED))
    case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4, mend=mend)
    redriven = case.store.whole(case.task_id)
    case.dead_letters.undo_redrive(copy)
    undone = case.store.whole(case.task_id)

    assert (redriven.concurrency_key, redriven.message.text("x-concurrency-key")) == ("robot-2", "robot-2")
    assert (undone.concurrency_key, undone.message.text("x-concurrency-key")) == ("robot-1", "robot-1")


def test_a_task_that_is_dead_again_before_its_redrive_is_recorded_is_listed(case):
    dead_letter = case.die()
    copy = redriven_copy(dead_letter)
    case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4)
    assert case.listed() == []
    # Published: a worker is faster than the redrive.
    again = case.die(copy.message)
    case.dead_letters.finish_redrive(copy)

    assert case.listed() == [case.task_id]
    assert (again.cycle, case.record().state) == (1, State.DEAD_LETTERED)


def test_dead_letters_are_grouped_whether_router_or_recorder_wrote_their_records(settings):
    texts = ["robot R-1 is away", "robot R-2 is away", "'Ada' has no key"]
    with contextlib.ExitStack() as stack:
        cases = [stack.enter_context(contextlib.closing(Case(settings))) for _ in texts]
        letters = [
            dead_copy(each.message, Reason.PERMANENT, text).message for each, text in zip(cases, texts, strict=True)
        ]
        for each, letter in zip(cases, letters, strict=True):
            each.dead_letters.record(letter, reason="permanent", max_attempts=4)
        died = cases[0].die(letters[0].with_headers(**{"x-cycle": 1}))
        service = cases[0].stores.service(None)
        found = survey_groups(service, DeadLetterFilter("echo"), shown=9)
        away, key = fingerprint("robot R-9 is away"), fingerprint("'Eve' has no key")
        listed = cases[0].dead_letters.list(DeadLetterFilter(fingerprint=away))

        assert fingerprint_of(died) == fingerprint("it broke")
        assert {(group.key.error_type, group.key.fingerprint, group.count) for group in found.groups} == {
            ("boom", fingerprint("it broke"), 1), ("permanent", away, 1), ("permanent", key, 1)
        }  # fmt: skip
        assert [record.task_id for record in listed.items] == [cases[1].task_id]
        assert listed.items[0].error_fingerprint == away
        assert [group.error for group in found.groups if group.key.fingerprint == key] == [texts[2]]


def test_very_many_dead_letters_are_grouped_in_parts_that_add_up(case):
    keys, number = case.stores.redis.keys, 3_000
    with case.redis.pipeline(transaction=False) as pipe:
        for at in range(number):
            state = {"state": "DEAD_LETTERED", "type": "echo", "errorType": "boom", "error": f"robot {at} is away"}
            pipe.hset(keys.task(f"task-{at}").record, mapping=state)
            pipe.zadd(keys.dead, {f"task-{at}": at // 700})  # many of one time
        pipe.execute()
    service, parts, cursor = case.stores.service(None), [], None
    while not parts or cursor:
        part = survey_groups(service, DeadLetterFilter(), shown=5, most=1_000, cursor=cursor)
        parts, cursor = [*parts, part], part.next

    (key,) = {group.key for part in parts for group in part.groups}
    assert key == ("echo", "boom", fingerprint("robot 1 is away"))
    assert sum(part.groups[0].count for part in parts) == number
    assert [part.grouped for part in parts[:-1] if not 1_000 <= part.grouped < 1_300] == []


def test_a_dead_letter_without_a_record_is_listed_also_when_another_client_lists_meanwhile(case, monkeypatch):
    dead_letter = dead_copy(case.message, Reason.EXPIRED, "too late").message
    run, reader = case.stores.redis.run, Stores(case.settings)

    def run_and_list(*commands):
        answers = run(*commands)
        reader.dead_letters.list()
        return answers

    with contextlib.closing(reader):
        monkeypatch.setattr(case.stores.redis, "run", run_and_list)
        case.dead_letters.record(dead_letter, reason="expired", max_attempts=4)

    assert case.listed() == [case.task_id]


@pytest.mark.parametrize("index", ["dead", "index", "index:ada"])
def test_a_record_that_comes_back_while_a_list_reads_its_entry_stays_listed(case, monkeypatch, index):
    """The walk finds no record, then the record comes back, then the walk drops what it found without one."""
    dead_letter = dead_copy(case.message, Reason.EXPIRED, "too late").message
    case.redis.zadd(f"{case.prefix}{index}", {case.task_id: 1_700_000_000_000})
    walk = {
        "dead": case.listed,
        "index": lambda: [record.task_id for record in case.store.list().items],
        "index:ada": lambda: [record.task_id for record in case.store.list(principal="ada").items],
    }[index]
    gather = case.stores.redis.gather

    def bury_behind(*steps):
        answers = gather(*steps)
        case.dead_letters.record(dead_letter, reason="expired", max_attempts=4)
        return answers

    with monkeypatch.context() as patch:
        patch.setattr(case.stores.redis, "gather", bury_behind)
        assert walk() == []

    assert walk() == [case.task_id]


@contextlib.contextmanager
def _dies_after(scripts, steps):
    """Each step goes by itself, as in a Redis Cluster, and after so many of them the process dies."""
    run, left = scripts.run, [steps]

    def one_by_one(*wanted):
        answers = []
        for step in wanted:
            if not left[0]:
                raise StoreUnavailable
            left[0] -= 1
            answers += run(step)
        return answers

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StoreUnavailable):
        patch.setattr(scripts, "run", one_by_one)
        yield


@pytest.mark.parametrize("steps", range(11))
def test_a_record_that_comes_back_is_listed_wherever_the_process_dies(case, steps):
    dead_letter = dead_copy(case.message, Reason.EXPIRED, "too late").message
    with _dies_after(case.stores.redis, steps):
        case.dead_letters.record(dead_letter, reason="expired", max_attempts=4)
    known = [] if case.record() is None else [case.task_id]

    assert case.listed() == known
    assert [record.task_id for record in case.store.list(principal="ada").items] == known
    case.dead_letters.record(dead_letter, reason="expired", max_attempts=4)
    assert case.listed() == [case.task_id]
    assert [record.task_id for record in case.store.list().items] == [case.task_id]


def test_a_redrive_that_is_cut_off_leaves_an_entry_that_no_list_shows(case):
    dead_letter = case.die()
    copy = redriven_copy(dead_letter)
    with _dies_after(case.stores.redis, 3):  # the record is written, the list not yet
        case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4)
    assert (case.record().cycle, case.record().state) == (1, State.SCHEDULED)
    assert case.redis.zcard(f"{case.prefix}dead") == 1

    assert case.listed() == []
    assert case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4).copy == copy
    case.die(copy.message)
    assert case.listed() == [case.task_id]


def test_a_redrive_whose_taking_back_is_cut_off_goes_on_or_is_taken_back_again(case):
    dead_letter = case.die()
    copy = redriven_copy(dead_letter)
    case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4)
    with _dies_after(case.stores.redis, 1):  # the list has it, the record not yet
        case.dead_letters.undo_redrive(copy)

    assert case.listed() == []
    assert case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4).answer is DecisionAnswer.ROUTE
    case.dead_letters.undo_redrive(copy)
    assert case.listed() == [case.task_id]


def test_an_entry_whose_record_is_gone_leaves_the_list(case):
    case.accept()
    case.redis.delete(f"{case.prefix}task:{{{case.task_id}}}")

    assert case.store.list().items == []
    assert case.redis.zcard(f"{case.prefix}index") == 0


def test_a_record_that_redis_loses_before_the_confirm_is_listed_and_looked_after(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key=None)
    case.wipe()
    case.store.mark_published(case.message, queue="q", max_attempts=4, idempotency_key=None)

    assert case.record().state is State.QUEUED
    assert [record.task_id for record in case.store.list(principal="ada").items] == [case.task_id]
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is not None


def test_a_redrive_that_is_taken_back_is_listed_again(case):
    dead_letter = case.die()
    copy = redriven_copy(dead_letter)
    case.dead_letters.redrive(dead_letter, copy, by="me", max_attempts=4)
    case.dead_letters.undo_redrive(copy)

    assert case.listed() == [case.task_id]


def test_a_discarded_dead_letter_expires_and_is_never_redriven(case):
    dead_letter = case.die()

    assert case.dead_letters.discard(case.task_id, by="me")
    assert 0 < case.redis.pttl(f"{case.prefix}task:{{{case.task_id}}}") <= case.settings.result_ttl * 1_000
    assert (
        case.dead_letters.redrive(dead_letter, redriven_copy(dead_letter), by="me", max_attempts=4).answer
        is DecisionAnswer.REFUSED
    )
    assert case.dead_letters.list().items == []


def test_a_refused_task_whose_record_redis_lost_is_still_refused(case):
    case.store.accept(case.message, max_attempts=4, idempotency_key="k")
    case.wipe()

    assert case.store.reject(case.message, error=ErrorInfo("x", "y", retryable=True), idempotency_key="k")


def test_the_indexes_drop_tasks_whose_records_have_long_expired(case, monkeypatch):
    monkeypatch.setattr("dispatch.store.tasks.TRIM_EVERY", 0.0)  # with each acceptance
    now = 1_800_000_000_000
    retention = int(case.settings.idempotency_ttl * 1_000)
    ages = {"old": now - retention - 1, "young": now - retention + 1_000, "new": now}
    ids = {name: new_task_id() for name in ages}
    for name, born in ages.items():
        message = case.message.with_headers(**{"id": ids[name], "x-accepted-at": born})
        case.store.accept(message, max_attempts=4, idempotency_key=None)

    for index in ("index", "index:ada"):
        assert case.redis.zrange(f"{case.prefix}{index}", 0, -1) == [ids["young"], ids["new"]]
