"""The transitions of a run against a real Redis: DESIGN §3, the claim's table, the fence, the hand-over."""

import os
import signal
import subprocess

import pytest
import redis
from pydantic import SecretStr

from dispatch.claims import Answer, Claims, Ticket
from dispatch.errors import StoreUnavailable
from dispatch.handover import Burial, Handovers, Word, dead_copy, next_copy, redriven_copy
from dispatch.records import ErrorInfo, Message, State, new_task_id
from dispatch.retry import Dead, Failure, Kind, Park, Retry
from dispatch.store import Store
from support.waiting import eventually

FAILURE = Failure(Kind.RETRYABLE, "boom", "it broke")


class Case:
    """One task and everything that may be said about it."""

    def __init__(self, settings):
        self.settings = settings
        self.claims = Claims(settings)
        self.handovers = Handovers(settings)
        self.store = Store(settings)
        self.redis = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
        self.prefix = settings.redis_prefix
        self.message = Message(
            b'[[{"message":"x"}],{},{}]',
            {
                "id": new_task_id(), "task": "echo", "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": "ada",
                "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-accepted-at": 1_700_000_000_000, "x-request-id": "rq",
            },
            routing_key="robot.task.dispatch.echo",
        )  # fmt: skip
        self.task_id = self.message.task_id
        self._owners = 0

    def accept(self):
        self.store.accept(self.message, max_attempts=4, key=None)
        self.store.mark_published(self.message, queue="q", max_attempts=4, key=None)

    def copy(self, **headers):
        names = {"seq": "x-seq", "cycle": "x-cycle", "attempt": "x-attempt"}
        return self.message.with_headers(**{names[name]: value for name, value in headers.items()})

    def ticket(self, owner=None):
        self._owners += 1
        return Ticket(owner or f"owner-{self._owners}", f"fence-{self._owners}", "w@test")

    def claim(self, message=None, ticket=None):
        return self.claims.claim(message or self.message, ticket or self.ticket(), 4)

    def run(self, message=None):
        ticket = self.ticket()
        assert self.claim(message, ticket).answer is Answer.RUN
        return ticket

    def lapse(self):
        """The lease is over, as if its time had passed."""
        self.redis.delete(f"{self.prefix}claim:{{{self.task_id}}}")

    def wipe(self):
        for key in self.redis.scan_iter(f"{self.prefix}*"):
            self.redis.delete(key)

    def decide(self, ticket, decision=None, message=None):
        message = message or self.message
        decision = decision or Retry(self.settings.ladder[0])
        copy = next_copy(message, FAILURE, decision, 1)
        return self.handovers.decide(message, ticket, copy, FAILURE, decision, max_attempts=4)

    def die(self, message=None):
        """An attempt fails for good; the letter that lies in the DLQ."""
        message = message or self.message
        ticket = self.run(message)
        copy = self.decide(ticket, Dead("permanent"), message).copy
        self.handovers.hand_over(copy, owner=ticket.owner)
        return copy.message

    def record(self):
        return self.store.get(self.task_id)

    def listed(self):
        return [record.task_id for record in self.store.dead_letters().items]

    def kinds(self):
        return [hop["kind"] for hop in self.store.hops(self.task_id)]

    def close(self):
        for each in (self.claims, self.handovers, self.store, self.redis):
            each.close()


@pytest.fixture
def case(settings):
    made = Case(settings)
    yield made
    made.close()


# --- the claim's table ---------------------------------------------------------------------------
def test_a_copy_without_a_record_runs_and_brings_its_record_back(case):
    case.run(case.copy(attempt=3, seq=4))
    record = case.record()

    assert (record.state, record.seq, record.attempt, record.principal) == (State.RUNNING, 4, 3, "ada")
    assert record.trace_id == "a" * 32
    assert record.created_at == 1_700_000_000_000
    assert record.message.body == case.message.body
    assert case.store.list(principal="ada").items[0].task_id == case.task_id
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is not None


def test_an_accepted_copy_runs_and_its_record_says_by_whom(case):
    case.accept()
    ticket = case.run()

    assert case.record().worker == "w@test"
    assert case.redis.get(f"{case.prefix}claim:{{{case.task_id}}}") == ticket.owner
    assert 0 < case.redis.pttl(f"{case.prefix}claim:{{{case.task_id}}}") <= case.settings.lease * 1_000
    assert case.kinds() == ["accepted", "published", "started"]


def test_a_finished_task_answers_done_to_any_copy_of_its_cycle_or_an_earlier_one(case):
    case.accept()
    letter = case.die()
    again = redriven_copy(letter)
    case.handovers.redrive(letter, again, by="me", max_attempts=4)
    case.handovers.finish_redrive(again)
    case.claims.complete(again.message, case.run(again.message), {"a": 1}, 4)

    answers = {case.claim(case.copy(seq=seq, cycle=cycle)).answer for seq in (0, 1, 2, 9) for cycle in (0, 1)}

    assert answers == {Answer.DONE}
    assert case.record().state is State.SUCCEEDED


def test_a_dead_letter_answers_done_until_it_is_redriven(case):
    letter = case.die()

    assert case.claim().answer is Answer.DONE
    assert case.claim(letter).answer is Answer.DONE


def test_a_copy_of_a_later_cycle_than_the_record_runs_and_brings_the_cycle(case):
    case.accept()
    case.die()
    case.run(case.copy(cycle=1, seq=2))

    assert (case.record().cycle, case.record().state) == (1, State.RUNNING)


def test_a_rejected_task_never_runs(case):
    case.store.accept(case.message, max_attempts=4, key=None)
    case.store.reject(case.message, error=ErrorInfo("x", "y", retryable=True), key=None)

    assert case.claim().answer is Answer.CANCELLED
    assert case.record().state is State.REJECTED


def test_an_older_copy_is_stale_once_a_later_one_has_taken_over(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket).copy
    case.handovers.hand_over(copy, owner=ticket.owner)

    assert case.claim().answer is Answer.STALE
    assert case.claim(copy.message).answer is Answer.RUN
    assert case.claim().answer is Answer.STALE


def test_a_copy_whose_failure_is_decided_gets_the_decided_copy_also_while_the_lease_lives(case):
    case.accept()
    decided = case.decide(case.run()).copy

    for _ in range(2):
        claimed = case.claim()
        assert (claimed.answer, claimed.copy) == (Answer.ROUTE, decided)
        case.lapse()


def test_another_owner_is_busy_while_the_lease_lives(case):
    case.accept()
    first = case.run()

    assert case.claim().answer is Answer.BUSY
    assert case.record().state is State.RUNNING
    assert case.claims.complete(case.message, first, {}, 4)


def test_the_same_ticket_may_ask_again_and_again_and_nothing_is_counted(case):
    case.accept()
    ticket = case.ticket()

    answers = [case.claim(ticket=ticket).answer for _ in range(5)]

    assert answers == [Answer.RUN] * 5
    assert (case.record().lost_runs, case.record().attempt) == (0, 1)


def test_a_claim_whose_answer_was_lost_counts_no_lost_run_even_after_its_lease(case):
    case.accept()
    owner = "the-delivery"
    for _ in range(4):  # held: Redis was away for longer than the lease, each time after the claim was written
        assert case.claim(ticket=case.ticket(owner)).answer is Answer.RUN
        case.lapse()

    assert case.record().lost_runs == 0


def test_each_lapsed_lease_counts_and_the_third_is_a_failed_attempt(case):
    case.accept()
    case.run()
    answers = []
    for _ in range(3):
        case.lapse()
        ticket = case.ticket()
        answers.append(case.claim(ticket=ticket).answer)

    assert answers == [Answer.RUN, Answer.RUN, Answer.LOST]
    assert case.decide(ticket).word is Word.OK
    assert case.record().lost_runs == 0


def test_the_next_attempt_begins_with_no_lost_runs(case):
    case.accept()
    case.run()
    case.lapse()
    ticket = case.run()
    assert case.record().lost_runs == 1
    copy = case.decide(ticket).copy
    case.handovers.hand_over(copy, owner=ticket.owner)
    case.run(copy.message)

    assert case.record().lost_runs == 0


def test_the_handed_over_copy_is_busy_until_its_hand_over_or_the_lease_is_over(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket).copy

    assert case.claim(copy.message).answer is Answer.BUSY
    case.handovers.hand_over(copy, owner=ticket.owner)
    assert case.claim(copy.message).answer is Answer.RUN


def test_a_copy_mends_a_hand_over_that_was_never_recorded(case):
    case.accept()
    copy = case.decide(case.run()).copy
    case.lapse()
    case.run(copy.message)
    case.handovers.hand_over(copy)  # late

    assert (case.record().state, case.record().seq, case.record().decision) == (State.RUNNING, 1, None)


# --- the fence -----------------------------------------------------------------------------------
def test_a_zombie_is_refused_whatever_it_says(case):
    case.accept()
    zombie = case.run()
    case.lapse()
    holder = case.run()

    assert not case.claims.complete(case.message, zombie, {"from": "zombie"}, 4)
    assert case.decide(zombie).word is Word.REFUSED
    case.claims.progress(case.task_id, zombie.fence, {"percent": 99, "message": "zombie"})
    case.claims.release(case.message, zombie, "q")
    assert case.claims.renew({zombie: (case.message, 4)}) == [zombie]
    assert case.record().progress is None
    assert case.claims.complete(case.message, holder, {"from": "holder"}, 4)
    assert case.record().result == {"from": "holder"}
    assert case.kinds().count("succeeded") == 1


def test_completion_may_be_said_twice_by_the_same_run_only(case):
    case.accept()
    ticket = case.run()

    assert case.claims.complete(case.message, ticket, {}, 4)
    assert case.claims.complete(case.message, ticket, {}, 4)
    assert not case.claims.complete(case.message, case.ticket(), {}, 4)
    assert case.kinds().count("succeeded") == 1


def test_completion_drops_the_lease_starts_the_clock_and_takes_the_reminder_away(case):
    case.accept()
    case.claims.complete(case.message, case.run(), {}, 4)
    keys = [f"{case.prefix}{name}:{{{case.task_id}}}" for name in ("task", "hops")]

    assert case.redis.exists(f"{case.prefix}claim:{{{case.task_id}}}") == 0
    assert all(0 < case.redis.pttl(key) <= case.settings.result_ttl * 1_000 for key in keys)
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is None


def test_a_living_task_and_a_dead_letter_never_expire(case):
    case.accept()
    key = f"{case.prefix}task:{{{case.task_id}}}"

    assert case.redis.pttl(key) == -1
    case.die()
    assert case.redis.pttl(key) == -1


def test_a_decision_is_made_once_and_a_repeat_gets_the_first_one(case):
    case.accept()
    ticket = case.run()
    first = case.decide(ticket)
    second = case.decide(ticket, Dead("permanent"))

    assert (first.word, second.word) == (Word.OK, Word.ROUTE)
    assert second.copy == first.copy
    assert case.kinds().count("failed") == 1


def test_a_decided_run_can_no_longer_succeed(case):
    case.accept()
    ticket = case.run()
    case.decide(ticket)

    assert not case.claims.complete(case.message, ticket, {}, 4)


def test_a_park_keeps_the_attempt_and_a_retry_raises_it(case):
    case.accept()
    rung = case.settings.ladder[1]
    parked = case.decide(case.run(), Park(rung)).copy.message

    assert (parked.seq, parked.attempt) == (1, 1)
    assert case.record().rung == "5m"


def test_the_wait_on_the_rung_begins_with_the_confirm(case):
    case.accept()
    copy = case.decide(case.run()).copy
    promised = case.record().next_attempt_at
    eventually(lambda: case.handovers.clock() * 1_000 > promised - 900, 5, "a tenth of a second passes")
    case.handovers.hand_over(copy, wait=1)

    assert case.record().next_attempt_at > promised


# --- renewal and release ---------------------------------------------------------------------------
def test_renewal_keeps_a_lease_and_takes_up_one_that_lapsed_unnoticed(case):
    case.accept()
    ticket = case.run()
    case.lapse()

    assert case.claims.renew({ticket: (case.message, 4)}) == []
    assert case.claim().answer is Answer.BUSY


def test_renewal_brings_back_a_record_that_redis_lost(case):
    case.accept()
    ticket = case.run()
    case.wipe()
    case.claims.renew({ticket: (case.message, 4)})

    assert case.record().state is State.RUNNING
    assert case.store.list(principal="ada").items[0].task_id == case.task_id
    assert case.claim().answer is Answer.BUSY
    assert case.claims.complete(case.message, ticket, {"a": 1}, 4)


@pytest.mark.parametrize("settled", ["complete", "decide and hand over", "release"])
def test_renewal_takes_nothing_back_that_is_settled(case, settled):
    case.accept()
    ticket = case.run()
    if settled == "complete":
        case.claims.complete(case.message, ticket, {}, 4)
    elif settled == "release":
        case.claims.release(case.message, ticket, "q")
    else:
        case.handovers.hand_over(case.decide(ticket).copy, owner=ticket.owner)

    assert case.claims.renew({ticket: (case.message, 4)}) == [ticket]
    assert case.redis.exists(f"{case.prefix}claim:{{{case.task_id}}}") == 0


def test_a_released_run_is_no_lost_run_and_the_next_copy_need_not_wait(case):
    case.accept()
    case.claims.release(case.message, case.run(), "robot.task.q")

    assert case.record().state is State.QUEUED
    case.run()
    assert case.record().lost_runs == 0


def test_a_wiped_task_comes_back_with_its_result_and_its_attempt(case):
    case.accept()
    ticket = case.run()
    case.wipe()

    assert case.claims.complete(case.message, ticket, {"a": 1}, 4)
    record = case.record()
    assert (record.state, record.result, record.principal, record.attempt) == (State.SUCCEEDED, {"a": 1}, "ada", 1)
    assert case.store.list(principal="ada").items[0].task_id == case.task_id


def test_a_wiped_task_whose_attempt_fails_comes_back_decided(case):
    case.accept()
    ticket = case.run()
    case.wipe()
    decided = case.decide(ticket)

    assert decided.word is Word.OK
    assert (case.record().state, case.record().attempt) == (State.RETRY_WAIT, 1)


def test_progress_of_a_long_run_does_not_push_out_how_the_task_came_here(case):
    case.accept()
    ticket = case.run()
    for percent in range(250):
        case.claims.progress(case.task_id, ticket.fence, {"percent": percent % 100, "message": str(percent)})
    hops = case.store.hops(case.task_id)

    assert [hop["kind"] for hop in hops[:3]] == ["accepted", "published", "started"]
    assert hops[-1]["message"] == "249"
    assert len(hops) <= 101
    assert [hop["seq"] for hop in hops] == sorted({hop["seq"] for hop in hops})


# --- letters ---------------------------------------------------------------------------------------
def test_the_tap_agrees_with_the_router_in_either_order(case):
    case.accept()
    ticket = case.run()
    copy = case.decide(ticket, Dead("permanent")).copy
    first = case.handovers.bury(copy.message, expired=False, reason="permanent", max_attempts=4)
    case.handovers.hand_over(copy, owner=ticket.owner)
    second = case.handovers.bury(copy.message, expired=False, reason="permanent", max_attempts=4)

    assert (first, second) == (Burial.OK, Burial.AGAIN)
    assert case.record().state is State.DEAD_LETTERED
    assert case.kinds().count("dead-lettered") == 1


def test_the_first_letter_of_a_death_is_kept_and_any_further_one_is_looked_at(case):
    letter = case.die()
    burials = [case.handovers.bury(letter, expired=False, reason="permanent", max_attempts=4) for _ in range(2)]

    assert burials == [Burial.DONE, Burial.AGAIN]
    assert set(case.handovers.stale_letters()) == {case.task_id}


def test_an_expired_copy_does_not_bury_a_task_that_lives_on(case):
    case.accept()

    def bury(message):
        return case.handovers.bury(message, expired=True, reason="expired", max_attempts=4)

    ticket = case.run()
    assert bury(case.message) is Burial.BUSY
    copy = case.decide(ticket).copy
    assert bury(case.message) is Burial.STALE
    case.handovers.hand_over(copy, owner=ticket.owner)
    assert bury(case.message) is Burial.STALE
    case.claims.complete(copy.message, case.run(copy.message), {}, 4)
    assert bury(copy.message) is Burial.OLD
    assert set(case.handovers.stale_letters()) == {case.task_id}


def test_a_letter_that_the_tap_has_not_seen_yet_can_be_redriven(case):
    case.accept()
    letter = dead_copy(case.message, "expired", "expired", "too late").message
    decided = case.handovers.redrive(letter, redriven_copy(letter), by="me", max_attempts=4)

    assert decided.word is Word.OK
    assert decided.copy.message.cycle == 1
    assert case.kinds()[-2:] == ["dead-lettered", "redriven"]


def test_a_letter_whose_task_runs_is_not_redriven(case):
    case.accept()
    case.run()
    decided = case.handovers.redrive(case.message, redriven_copy(case.message), by="me", max_attempts=4)

    assert decided.word is Word.BUSY
    assert case.record().state is State.RUNNING


def test_a_redrive_is_decided_once_and_may_be_taken_back(case):
    letter = case.die()
    copies = [redriven_copy(letter), redriven_copy(letter)]
    words = [case.handovers.redrive(letter, copy, by="me", max_attempts=4).word for copy in copies]
    case.handovers.undo_redrive(copies[0])

    assert words == [Word.OK, Word.ROUTE]
    assert (case.record().state, case.record().cycle) == (State.DEAD_LETTERED, 0)
    assert case.handovers.redrive(letter, copies[0], by="me", max_attempts=4).word is Word.OK


def test_a_task_that_is_dead_again_before_its_redrive_is_told_is_listed(case):
    letter = case.die()
    copy = redriven_copy(letter)
    case.handovers.redrive(letter, copy, by="me", max_attempts=4)
    assert case.listed() == []
    # Published: a worker is faster than whoever asked.
    again = case.die(copy.message)
    case.handovers.finish_redrive(copy)

    assert case.listed() == [case.task_id]
    assert (again.cycle, case.record().state) == (1, State.DEAD_LETTERED)


def test_a_letter_without_a_record_is_listed_also_when_somebody_lists_meanwhile(case, monkeypatch):
    letter = dead_copy(case.message, "expired", "expired", "too late").message
    run = case.handovers._scripts.run

    def run_and_list(*steps):
        answers = run(*steps)
        case.listed()
        return answers

    monkeypatch.setattr(case.handovers._scripts, "run", run_and_list)
    case.handovers.bury(letter, expired=True, reason="expired", max_attempts=4)

    assert case.listed() == [case.task_id]


@pytest.mark.parametrize("index", ["dead", "index", "index:ada"])
def test_a_record_that_comes_back_while_somebody_walks_over_its_entry_stays_listed(case, monkeypatch, index):
    """The walk finds no record, then the record comes back, then the walk drops what it found without one."""
    letter = dead_copy(case.message, "expired", "expired", "too late").message
    case.redis.zadd(f"{case.prefix}{index}", {case.task_id: 1_700_000_000_000})
    walk = {
        "dead": case.listed,
        "index": lambda: [record.task_id for record in case.store.list().items],
        "index:ada": lambda: [record.task_id for record in case.store.list(principal="ada").items],
    }[index]
    gather = case.store._scripts.gather

    def bury_behind(*steps):
        answers = gather(*steps)
        case.handovers.bury(letter, expired=True, reason="expired", max_attempts=4)
        return answers

    with monkeypatch.context() as patch:
        patch.setattr(case.store._scripts, "gather", bury_behind)
        assert walk() == []

    assert walk() == [case.task_id]


def test_an_entry_whose_record_is_gone_leaves_the_list(case):
    case.accept()
    case.redis.delete(f"{case.prefix}task:{{{case.task_id}}}")

    assert case.store.list().items == []
    assert case.redis.zcard(f"{case.prefix}index") == 0


def test_a_record_that_redis_loses_before_the_confirm_is_listed_and_looked_after(case):
    case.store.accept(case.message, max_attempts=4, key=None)
    case.wipe()
    case.store.mark_published(case.message, queue="q", max_attempts=4, key=None)

    assert case.record().state is State.QUEUED
    assert [record.task_id for record in case.store.list(principal="ada").items] == [case.task_id]
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is not None


def test_a_redrive_that_is_taken_back_is_listed_again(case):
    letter = case.die()
    copy = redriven_copy(letter)
    case.handovers.redrive(letter, copy, by="me", max_attempts=4)
    case.handovers.undo_redrive(copy)

    assert case.listed() == [case.task_id]


def test_a_discarded_letter_expires_and_is_never_redriven(case):
    letter = case.die()

    assert case.handovers.discard(case.task_id, by="me")
    assert 0 < case.redis.pttl(f"{case.prefix}task:{{{case.task_id}}}") <= case.settings.result_ttl * 1_000
    assert case.handovers.redrive(letter, redriven_copy(letter), by="me", max_attempts=4).word is Word.REFUSED
    assert case.store.dead_letters().items == []


def test_a_refused_task_whose_record_redis_lost_is_still_refused(case):
    case.store.accept(case.message, max_attempts=4, key="k")
    case.wipe()

    assert case.store.reject(case.message, error=ErrorInfo("x", "y", retryable=True), key="k")


def test_the_indexes_forget_tasks_whose_records_have_long_expired(case):
    now = 1_800_000_000_000
    retention = int(case.settings.idempotency_ttl * 1_000)
    ages = {"old": now - retention - 1, "young": now - retention + 1_000, "new": now}
    ids = {name: new_task_id() for name in ages}
    for name, born in ages.items():
        message = case.message.with_headers(**{"id": ids[name], "x-accepted-at": born})
        case.store.accept(message, max_attempts=4, key=None)

    for index in ("index", "index:ada"):
        assert case.redis.zrange(f"{case.prefix}{index}", 0, -1) == [ids["young"], ids["new"]]


# --- reminders -------------------------------------------------------------------------------------
def test_a_reminder_that_was_set_meanwhile_outlives_the_sweepers_forgetting(case):
    case.accept()
    looked = case.handovers.clock()
    case.handovers.look_again(case.task_id, looked + 30)  # as a redrive does
    case.handovers.forget(case.task_id, looked)

    assert case.redis.zscore(f"{case.prefix}due", case.task_id) == pytest.approx(looked + 30)
    case.handovers.look_again(case.task_id, looked - 1)
    case.handovers.forget(case.task_id, looked)
    assert case.redis.zscore(f"{case.prefix}due", case.task_id) is None


# --- Redis in trouble ------------------------------------------------------------------------------
@pytest.fixture
def own_case(settings, tmp_path):
    """A case on a Redis of its own, which may be mistreated, and a function that starts it again."""
    address = tmp_path / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(address), "--dir", str(tmp_path)]
    command += ["--save", "", "--appendonly", "yes"]
    started = []

    def start():
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        eventually(lambda: _answers(address), 10, "Redis answers")
        return started[-1]

    start()
    own = settings.model_copy(update={"redis_url": SecretStr(f"unix://{address}")})
    made = Case(own)
    yield made, start
    made.close()
    for process in started:
        process.kill()
        process.wait()


def _answers(address):
    client = redis.Redis(unix_socket_path=str(address))
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
    finally:
        client.close()


@pytest.mark.parametrize(
    ("trouble", "relief"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ],
    ids=["full", "read-only"],
)
def test_a_redis_that_cannot_write_is_unavailable_and_not_our_mistake(own_case, trouble, relief):
    case, _ = own_case
    case.accept()
    ticket = case.run()
    case.redis.execute_command(*trouble)
    try:
        for say in (
            lambda: case.store.accept(case.copy(), max_attempts=4, key=None),  # many commands at once
            lambda: case.claims.complete(case.message, ticket, {}, 4),
            lambda: case.handovers.discard(case.task_id, by="me"),
        ):
            with pytest.raises(StoreUnavailable):
                say()
    finally:
        case.redis.execute_command(*relief)

    assert case.claims.complete(case.message, ticket, {}, 4)


def test_a_redis_that_was_killed_is_used_again_when_it_is_back(own_case):
    case, start = own_case
    case.accept()
    ticket = case.run()
    for kill in (True, False):
        if kill:
            process = case.redis.info("server")["process_id"]
            os.kill(process, signal.SIGKILL)
            eventually(lambda: _gone(case), 10, "Redis is gone")
            start()
        else:
            case.redis.script_flush()
        assert eventually(lambda: _renewed(case, ticket), 5, "the lease is renewed")

    assert case.claims.complete(case.message, ticket, {}, 4)


def _gone(case):
    try:
        case.claims.renew({case.ticket(): (case.message, 4)})
    except StoreUnavailable:
        return True
    return False


def _renewed(case, ticket):
    try:
        return case.claims.renew({ticket: (case.message, 4)}) == []
    except StoreUnavailable:
        return False
