"""P4: dead letters are redriven or discarded, and none is lost or doubled on the way."""

import dataclasses
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from dispatch.broker.depth import depth
from dispatch.broker.publisher import Publisher
from dispatch.deadletters.bulk import BulkRedrive, redrive_matching
from dispatch.deadletters.janitor import MISSES, clear_stale
from dispatch.deadletters.service import NotDead
from dispatch.deadletters.walk import MOST, StopWalk, walk
from dispatch.deadletters.walk_lock import WalkInProgress
from dispatch.errors import InDoubt, NotSent, PublishError, StoreUnavailable, TaskError, Unroutable
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason, normalized
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import ACCEPTED_AT, CYCLE, SEQ, Message
from dispatch.protocol.record import State
from support import processes
from support.proxy import DOWN, UP, Proxy
from support.waiting import eventually
from support.worker import environment, running_worker

PAYLOAD = {"message": "x"}


@pytest.fixture
def dead_letters(bench):
    """The operator's verbs."""
    return bench.stores.service(bench.publisher)


def _dead_letter(type="echo", error="boom", payload=None, **headers):
    """A dead letter as the router sends it, without a record."""
    given = {
        "id": new_task_id(), "task": type, "retries": 0, CYCLE: 0, SEQ: 1, "x-attempt": 1, "x-principal": "ada",
        ACCEPTED_AT: int(time.time() * 1_000), **headers,
    }  # fmt: skip
    body = json.dumps([[payload or PAYLOAD], {}, {}]).encode()
    message = Message(body, given, routing_key=names.routing_key(type))
    return dead_copy(message, Reason.PERMANENT, "it broke", error_type=error).message


def _post(bench, dead_letters):
    for dead_letter in dead_letters:
        bench.publisher.publish(dead_letter, names.DEAD_EXCHANGE, dead_letter.routing_key)


def _record(bench, dead_letters):
    """As the recorder does."""
    for dead_letter in dead_letters:
        bench.stores.dead_letters.record(dead_letter, reason="permanent", max_attempts=4)


def _celery(bench, *arguments):
    words = ["-A", "celery_app", "dlq", *arguments]
    return processes.run("celery", words, environ=environment(bench.settings), timeout=100)


def _dlq(bench, *arguments, code=0):
    done = _celery(bench, *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_a_redriven_dead_letter_runs_in_its_next_cycle_with_the_same_id_and_trace(bench, dead_letters):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "permanent": True})
        dead = bench.finished(task_id)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 10, "the dead letter is there")
        record = dead_letters.redrive(task_id, by="me")
        again = eventually(
            lambda: (found := bench.store.get(task_id)).state is State.DEAD_LETTERED and found.cycle == 1 and found, 20
        )
        # The first cycle's dead letter goes, the second one's comes.
        left = bench.settled_dead_letters(1)
        bench.drained()

    assert record.cycle == 1
    assert again.trace_id == dead.trace_id
    assert [dead_letter.cycle for dead_letter in left] == [1]
    assert bench.hops(task_id).count("started") == 2
    assert bench.hops(task_id).count("redriven") == 1


def test_a_dead_letter_of_a_task_that_has_since_succeeded_is_not_redriven(bench, dead_letters):
    dead_letter = _dead_letter()
    _post(bench, [dead_letter, dead_letter])  # and a second copy of it
    _record(bench, [dead_letter])
    with running_worker(bench.settings):
        dead_letters.redrive(dead_letter.task_id, by="me")
        bench.finished(dead_letter.task_id)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "both dead letters are gone")
        with pytest.raises(NotDead):
            dead_letters.redrive(dead_letter.task_id, by="me")
        bench.drained()
    _post(bench, [dead_letter])  # it turns up once more
    output = _dlq(bench, "redrive", dead_letter.task_id, code=1)

    assert "stale, removed" in output
    assert bench.depth(names.DEAD_QUEUE) == 0
    assert bench.hops(dead_letter.task_id).count("succeeded") == 1


def test_a_broker_that_refuses_a_redrive_leaves_the_dead_letter_and_one_that_is_silent_leaves_no_second_run(bench):
    refused, silent = _dead_letter(), _dead_letter()
    _post(bench, [refused, silent])
    _record(bench, [refused, silent])
    with Proxy.to(bench.settings.broker("replay")) as proxy:
        publisher = Publisher(proxy.url, timeout=1)
        eventually(publisher.ready, 10, "connected")
        verbs = bench.stores.service(publisher)
        proxy.hold(DOWN)
        with pytest.raises(InDoubt):
            verbs.redrive(silent.task_id, by="me")
        doubt = bench.store.get(silent.task_id)
        proxy.release()
        proxy.refuse()
        proxy.cut()
        eventually(lambda: not publisher.ready(), 10, "not connected")
        with pytest.raises(NotSent):
            verbs.redrive(refused.task_id, by="me")
        record = bench.store.get(refused.task_id)
        publisher.close()

    assert (record.state, record.cycle, record.decided_seq) == (State.DEAD_LETTERED, 0, None)
    assert (doubt.state, doubt.cycle) == (State.SCHEDULED, 1)
    assert len(bench.dead_letters()) == 2
    with running_worker(bench.settings, abrupt=True):
        # The doubtful copy was stored: it runs; if the sweeper sends another one, that one is fenced off.
        finished = bench.finished(silent.task_id)
        left = bench.settled_dead_letters(1)
        eventually(lambda: bench.store.get(silent.task_id).before_redrive is None, 20, "settled")
        bench.drained()

    assert finished.state is State.SUCCEEDED
    assert [dead_letter.task_id for dead_letter in left] == [refused.task_id]
    assert bench.hops(silent.task_id).count("started") == 1


def test_a_second_copy_of_a_dead_letter_that_comes_after_a_refused_redrive_is_taken_out(bench):
    dead_letter = _dead_letter()
    records = bench.stores.dead_letters
    with running_worker(bench.settings):
        _post(bench, [dead_letter])  # its confirm was lost with the broker, so the worker will publish it again
        eventually(
            lambda: (found := bench.store.get(dead_letter.task_id)) and found.is_dead_letter, 10, "the tap has seen it"
        )
        copy = redriven_copy(dead_letter)
        records.redrive(dead_letter, copy, by="me", max_attempts=4)
        records.undo_redrive(copy)  # the broker was away for that, too
        eventually(lambda: not records.flagged(), 20, "the janitor has looked, and found one letter")
        _post(bench, [dead_letter])
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 2, 10, "both are there")
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 1, 20, "the second one is taken out")
        bench.drained()

    assert [found.task_id for found in bench.dead_letters()] == [dead_letter.task_id]
    assert bench.store.get(dead_letter.task_id).state is State.DEAD_LETTERED


def test_a_redrive_that_died_in_the_middle_is_finished_by_the_workers(bench):
    unpublished, published = _dead_letter(), _dead_letter()
    _post(bench, [unpublished, published])
    _record(bench, [unpublished, published])
    records = bench.stores.dead_letters
    for dead_letter in (unpublished, published):
        records.redrive(dead_letter, redriven_copy(dead_letter), by="me", max_attempts=4)
    copy = redriven_copy(published)
    bench.publisher.publish(copy.message, copy.exchange, copy.routing_key)  # killed before it could record that
    with running_worker(bench.settings, abrupt=True):
        records = [bench.finished(dead_letter.task_id, 30) for dead_letter in (unpublished, published)]
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "the dead letters are gone")
        bench.drained()

    assert [(record.state, record.cycle, record.error) for record in records] == [(State.SUCCEEDED, 1, None)] * 2
    assert [bench.hops(record.task_id).count("started") for record in records] == [1, 1]


def test_the_command_lists_shows_redrives_and_discards(bench):
    good, bad = _dead_letter(error="first"), _dead_letter(error="second")
    undecodable = dead_copy(Message(b"{", {}, routing_key="robot.task.dispatch.x"), Reason.UNDECODABLE, "no").message
    undecodable = undecodable.with_headers(**{"x-dead-id": new_task_id()})
    every = [good, bad, undecodable]
    _post(bench, every)
    _record(bench, every)
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(_dlq, bench, *words.split())
            for words in (
                "list --json",
                "list --error-type second",
                f"show {bad.task_id}",
                "redrive --type echo --dry-run",
            )
        ]
    lines, table, text, dry = (each.result() for each in asked)
    listed, shown = [json.loads(line) for line in lines.splitlines()], json.loads(text)
    sent = _dlq(bench, "redrive", "--error-type", "first", "--yes")
    gone = _dlq(bench, "discard", bad.task_id)

    assert {line["taskId"] for line in listed} == {dead_letter.task_id for dead_letter in every}
    assert bad.task_id in table
    assert good.task_id not in table
    assert (shown["error"]["type"], shown["deadReason"]) == ("second", "permanent")
    assert shown["message"]["body"] == bad.body.decode()
    assert "2 dead letters would be redriven" in dry
    assert f"{good.task_id}  sent, cycle 1\n1 redriven" in sent
    assert "1 discarded" in gone
    assert [dead_letter.task_id for dead_letter in bench.dead_letters()] == [undecodable.task_id]
    assert bench.state(bad.task_id) is State.DEAD_LETTERED
    assert "no dead letter of task" in _dlq(bench, "show", bad.task_id, code=1)
    assert bench.depth(names.WORK_QUEUE) == 1


def test_dead_letters_whose_records_are_gone_or_late_are_redriven_all_the_same(bench, dead_letters):
    without_record = _dead_letter()
    task_id = bench.submit("echo", PAYLOAD)
    late = dead_copy(bench.message(task_id), Reason.EXPIRED, "too late").message  # no tap has seen it
    _post(bench, [without_record, late])
    bench.purge(names.WORK_QUEUE)
    with bench.stores.lock().held() as turn:
        sent = redrive_matching(
            bench.settings.broker("replay"), dead_letters, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
        )

    assert sent == 2
    assert bench.depth(names.DEAD_QUEUE) == 0
    assert [bench.store.get(each).cycle for each in (task_id, without_record.task_id)] == [1, 1]
    assert bench.depth(names.WORK_QUEUE) == 2


def test_a_dead_letter_of_a_task_that_still_runs_stays(bench, dead_letters):
    with running_worker(bench.settings, abrupt=True):
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 3})
        bench.wait_for(task_id, State.RUNNING)
        _post(bench, [dead_copy(bench.message(task_id), Reason.EXPIRED, "too late").message])
        with bench.stores.lock().held(10) as turn:
            sent = redrive_matching(
                bench.settings.broker("replay"), dead_letters, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
            )
        kept = bench.depth(names.DEAD_QUEUE)
        record = bench.finished(task_id)
        # The tap sees that the task has succeeded without it, and the janitor takes it out.
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "the dead letter is gone")

    assert (sent, kept) == (0, 1)
    assert record.state is State.SUCCEEDED


def test_one_walks_at_a_time_and_the_others_are_refused(bench):
    _post(bench, [_dead_letter()])
    with bench.stores.lock().held(), pytest.raises(WalkInProgress), bench.stores.lock().held(0.3):
        pass
    with bench.stores.lock().held() as turn:
        seen = []
        walk(bench.settings.broker("replay"), turn, lambda dead_letter: bool(seen.append(dead_letter)))

    assert len(seen) == 1


def test_a_job_is_done_by_one_of_many_workers_to_its_limit_and_in_order(bench, dead_letters):
    many = [_dead_letter() for _ in range(30)]
    _post(bench, many)
    _record(bench, many)
    with running_worker(bench.settings), running_worker(bench.settings):
        bulk = BulkRedrive(DeadLetterFilter(type="echo"), 20, 0, "me")
        found = dead_letters.count(bulk.filter, most=bulk.limit)
        bench.stores.bulk.add(bulk)
        for dead_letter in many[:20]:
            bench.wait_for(dead_letter.task_id, State.SUCCEEDED, 40)
        eventually(lambda: bench.stores.bulk.next() is None, 20, "the job is done")
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 10, 20, "the others stay")
        bench.drained()

    assert found == 20
    assert {dead_letter.task_id for dead_letter in bench.dead_letters()} == {
        dead_letter.task_id for dead_letter in many[20:]
    }
    assert {bench.runs(dead_letter.task_id) for dead_letter in many[:20]} == {1}


def test_a_job_that_was_interrupted_goes_on_with_what_is_left_of_its_limit(bench):
    many = [_dead_letter() for _ in range(20)]
    _post(bench, many)
    _record(bench, many)
    with Proxy.to(bench.settings.broker("replay")) as proxy:
        publisher = Publisher(proxy.url, timeout=1)
        eventually(publisher.ready, 10, "connected")
        janitor = bench.stores.janitor(publisher)
        bench.stores.bulk.add(BulkRedrive(DeadLetterFilter(), 12, 0, "me"))

        def fifth(direction, data):
            if direction == UP and many[5].task_id.encode() in data:
                proxy.refuse()
                proxy.cut()

        proxy.watch = fifth
        with pytest.raises(PublishError):
            janitor.step()
        left = bench.stores.bulk.next()
        proxy.watch = None
        proxy.admit()
        eventually(publisher.ready, 10, "connected again")
        janitor.step()
        done = bench.stores.bulk.next()
        publisher.close()

    assert 1 <= left.limit <= 12  # the sixth is left; of those beside it any may have been confirmed
    assert done is None
    assert len([dead_letter for dead_letter in many if bench.store.get(dead_letter.task_id).cycle == 1]) == 12


#: Dead letters in the DLQ: more than a quorum queue gives one consumer unacked.
MANY = int(os.environ.get("ROBOT_TEST_LETTERS", "2500"))


def test_a_redrive_by_type_walks_past_all_others_and_leaves_them(bench):
    others = [_dead_letter("robot.clean", payload={}) for _ in range(MANY)]
    meant = [_dead_letter("echo") for _ in range(100)]
    _post_many(bench, [*others, *meant])
    began = time.monotonic()
    output = _celery(bench, "redrive", "--type", "echo", "--yes")
    seconds = time.monotonic() - began

    assert output.returncode == 0, output.stderr
    assert output.stdout.endswith("100 redriven\n")
    assert [line.split()[0] for line in output.stdout.splitlines()[:-1]] == [
        dead_letter.task_id for dead_letter in meant
    ]
    assert sorted(dead_letter.task_id for dead_letter in bench.dead_letters()) == sorted(
        dead_letter.task_id for dead_letter in others
    )
    assert bench.depth(names.WORK_QUEUE) == 100
    assert seconds < 60, f"{MANY} dead letters walked, 100 redriven in {seconds:.1f} s"


def test_a_redrive_that_is_killed_in_the_middle_loses_and_doubles_nothing(bench, tmp_path):
    many = [_dead_letter() for _ in range(300)]
    _post_many(bench, many)
    words, output = (
        ["-A", "celery_app", "dlq", "redrive", "--all", "--yes"],
        processes.Output(tmp_path / "out", tmp_path / "err"),
    )
    process = processes.start("celery", words, environ=environment(bench.settings), output=output)
    eventually(lambda: bench.depth(names.WORK_QUEUE) > 50, 30, "it is in the middle", interval=0.005)
    process.kill()
    process.wait(10)
    done = bench.depth(names.WORK_QUEUE)
    eventually(lambda: bench.depth(names.DEAD_QUEUE) >= len(many) - done - 1, 10, "its dead letters are back")
    _dlq(bench, "redrive", "--all", "--yes")
    with running_worker(bench.settings, abrupt=True):
        states = {bench.finished(dead_letter.task_id, 60).state for dead_letter in many}
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "every dead letter is gone")
        bench.drained()

    assert done < len(many)
    assert states == {State.SUCCEEDED}
    assert {bench.store.get(dead_letter.task_id).cycle for dead_letter in many} == {1}
    assert {bench.hops(dead_letter.task_id).count("succeeded") for dead_letter in many} == {1}


def _post_many(bench, dead_letters):
    """Without waiting for each confirm."""
    bench.publisher.publish(dead_letters[0], names.DEAD_EXCHANGE, dead_letters[0].routing_key)
    link = bench.publisher._connection
    until = time.monotonic() + 60
    futures = [
        link.publish(dead_letter, names.DEAD_EXCHANGE, dead_letter.routing_key, until)
        for dead_letter in dead_letters[1:]
    ]
    for future in futures:
        future.result(60)


def test_a_dead_letter_that_another_consumer_holds_while_the_janitor_walks_is_taken_out_later(bench):
    dead_letter = _dead_letter()
    _post(bench, [dead_letter])
    _record(bench, [dead_letter])
    records, copy, missed = bench.stores.dead_letters, redriven_copy(dead_letter), {}
    records.redrive(dead_letter, copy, by="me", max_attempts=4)
    records.finish_redrive(copy)

    with bench.stores.lock().held() as turn:
        with Connection(bench.settings.broker("admin")) as connection:
            held = connection.default_channel.basic_get(names.DEAD_QUEUE)  # as the management UI does
            taken = [clear_stale(bench.settings.broker("replay"), turn, bench.store, records, missed)]
        taken.append(clear_stale(bench.settings.broker("replay"), turn, bench.store, records, missed))
        marked = [records.flagged()]
        records.finish_redrive(copy)  # marked once more: there is no dead letter any more
        for _ in range(MISSES):
            marked.append(records.flagged())
            clear_stale(bench.settings.broker("replay"), turn, bench.store, records, missed)
        marked.append(records.flagged())

    assert held is not None
    assert taken == [0, 1]
    assert [bool(each) for each in marked] == [False, *[True] * MISSES, False]
    assert missed == {}


@pytest.mark.parametrize("to_the_end", [True, False], ids=["to the end", "cut off"])
def test_a_redrive_that_is_confirmed_behind_the_walks_back_gets_its_dead_letter_taken_out(bench, to_the_end):
    dead_letter = _dead_letter()
    _post(bench, [dead_letter])
    _record(bench, [dead_letter])
    records, copy = bench.stores.dead_letters, redriven_copy(dead_letter)
    records.redrive(dead_letter, copy, by="me", max_attempts=4)

    class Late:
        briefs = bench.store.briefs

        def get(self, task_id):
            record = bench.store.get(task_id)
            (records.finish_redrive if to_the_end else bench.stores.handovers.hand_over)(copy)
            return record

    with bench.stores.lock().held() as turn:
        taken = [clear_stale(bench.settings.broker("replay"), turn, store, records) for store in (Late(), bench.store)]

    assert taken == [0, 1]
    assert records.flagged() == {}
    assert bench.depth(names.DEAD_QUEUE) == 0


class _Picky:
    """A publisher on which some task types' copies fail, each with an error of its own."""

    def __init__(self, publisher, errors):
        self._publisher = publisher
        self.errors = errors

    def publish(self, message, exchange, routing_key):
        if (error := self.errors.get(message.type)) is not None:
            raise error
        return self._publisher.publish(message, exchange, routing_key)


def test_a_dead_letter_with_a_key_that_reaches_no_task_queue_is_redriven_under_its_types(bench):
    foreign = dataclasses.replace(_dead_letter(), routing_key="robot.task.other")
    junk = dead_copy(Message(b"{", {}, routing_key="celery.pidbox"), Reason.UNDECODABLE, "no").message
    good = _dead_letter()
    _post(bench, [foreign, junk, good])
    janitor = bench.stores.janitor(bench.publisher)
    for wanted in (DeadLetterFilter(), DeadLetterFilter(type="echo")):
        bench.stores.bulk.add(BulkRedrive(wanted, 10, 0, "me"))
    janitor.step()
    janitor.step()

    assert bench.stores.bulk.next() is None
    assert bench.depth(names.DEAD_QUEUE) == 0
    assert bench.depth(names.WORK_QUEUE) == 3


@pytest.mark.parametrize("error", [Unroutable("no"), ValueError("no frame"), TaskError("odd")], ids=repr)
def test_one_dead_letter_that_cant_be_sent_is_passed_over_and_the_redrive_finishes(bench, error):
    bad, good = _dead_letter("robot.clean"), [_dead_letter() for _ in range(3)]
    _post(bench, [bad, *good])
    _record(bench, [bad, *good])
    janitor = bench.stores.janitor(_Picky(bench.publisher, {"robot.clean": error}))
    bench.stores.bulk.add(BulkRedrive(DeadLetterFilter(), 10, 0, "me"))
    janitor.step()
    record = bench.store.get(bad.task_id)

    assert bench.stores.bulk.next() is None
    assert [dead_letter.task_id for dead_letter in bench.dead_letters()] == [bad.task_id]
    assert (record.state, record.cycle, record.before_redrive) == (State.DEAD_LETTERED, 0, None)
    assert {bench.store.get(dead_letter.task_id).cycle for dead_letter in good} == {1}


@pytest.mark.parametrize("error", [NotSent("no"), InDoubt("no"), StoreUnavailable("no")], ids=repr)
def test_a_job_that_gets_nowhere_waits_behind_the_others(bench, error):
    stuck, good = _dead_letter("robot.clean"), _dead_letter()
    _post(bench, [stuck, good])
    _record(bench, [stuck, good])
    publisher = _Picky(bench.publisher, {"robot.clean": error})
    janitor = bench.stores.janitor(publisher)
    first, second = (BulkRedrive(DeadLetterFilter(type=name), 10, 0, "me") for name in ("robot.clean", "echo"))
    bench.stores.bulk.add(first)
    bench.stores.bulk.add(second)
    with pytest.raises(type(error)):
        janitor.step()
    janitor.step()
    left, sent = bench.stores.bulk.next(), bench.store.get(good.task_id).cycle
    publisher.errors.clear()
    janitor.step()

    assert (left, sent) == (first, 1)
    assert bench.stores.bulk.next() is None
    assert bench.store.get(stuck.task_id).cycle == 1


@pytest.mark.parametrize("ends", [False, StopWalk], ids=["through", "ended early"])
def test_what_a_walk_gives_back_is_there_when_it_returns(bench, ends):
    _post(bench, [_dead_letter() for _ in range(3)])

    def visit(_dead_letter):
        if ends:
            raise ends
        return False

    with bench.stores.lock().held() as turn, Connection(bench.settings.broker("admin")) as connection:
        channel, found = connection.default_channel, []
        for _ in range(10):
            walk(bench.settings.broker("replay"), turn, visit)
            found.append(depth(channel, names.DEAD_QUEUE).ready)

    assert found == [3] * 10


def test_a_dead_letter_with_a_cycle_out_of_range_is_redriven_into_one_that_workers_take(bench, dead_letters):
    odd = _dead_letter(**{CYCLE: 2**62})
    _post(bench, [odd])
    bench.stores.dead_letters.record(normalized(odd), reason="permanent", max_attempts=4)
    with bench.stores.lock().held() as turn:
        sent = redrive_matching(
            bench.settings.broker("replay"), dead_letters, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
        )

    assert sent == 1
    assert bench.depth(names.WORK_QUEUE) == 1
    assert bench.store.get(odd.task_id).cycle == 1


def test_a_bulk_redrive_is_stopped_while_it_waits_and_while_it_runs(bench):
    letters = [_dead_letter() for _ in range(2 * MOST + 1)]
    _post(bench, letters)
    _record(bench, letters)
    running, waiting = (BulkRedrive(DeadLetterFilter(type="echo"), 100, 0, "me") for _ in range(2))
    bench.stores.bulk.add(running)
    bench.stores.bulk.add(waiting)
    _dlq(bench, "stop", waiting.id)
    listed = _dlq(bench, "jobs")

    class Stopping(_Picky):
        """Whose first publishes find the job stopped."""

        def publish(self, *arguments):
            bench.stores.bulk.stop(running.id)
            self.sent.append(arguments)
            return super().publish(*arguments)

    publisher = Stopping(bench.publisher, {})
    publisher.sent = []
    bench.stores.janitor(publisher).step()

    assert running.id in listed
    assert waiting.id not in listed
    assert bench.depth(names.WORK_QUEUE) == len(publisher.sent)
    assert 1 <= len(publisher.sent) <= MOST  # what was under way
    assert len(bench.dead_letters()) == len(letters) - len(publisher.sent)
    assert bench.stores.bulk.all() == []
    assert "0 stopped" in _dlq(bench, "stop", running.id, code=1)


def test_what_goes_wrong_with_some_of_those_side_by_side_leaves_them_and_no_other(bench):
    letters = [_dead_letter("http.request" if number % 5 == 2 else "echo") for number in range(MOST)]
    _post(bench, letters)
    _record(bench, letters)
    unlucky = {letter.task_id for letter in letters if letter.type == "http.request"}
    publisher = _Picky(bench.publisher, {"http.request": NotSent("gone")})
    outcomes = []
    with bench.stores.lock().held() as turn, pytest.raises(NotSent):
        redrive_matching(
            bench.settings.broker("replay"),
            bench.stores.service(publisher),
            turn,
            BulkRedrive(DeadLetterFilter(), 100, 0, "me"),
            on_outcome=lambda letter, _: outcomes.append(letter.task_id),
        )
    left = {letter.task_id for letter in bench.dead_letters()}

    assert unlucky <= left
    assert {letter.task_id for letter in letters} - left == set(outcomes)
    assert outcomes == sorted(outcomes, key=[letter.task_id for letter in letters].index)  # in the queue's order
    assert bench.depth(names.WORK_QUEUE) == len(outcomes)


def test_no_more_are_redriven_side_by_side_than_the_limit_allows(bench):
    letters = [_dead_letter() for _ in range(MOST)]
    _post(bench, letters)
    _record(bench, letters)
    with bench.stores.lock().held() as turn:
        bulk = BulkRedrive(DeadLetterFilter(), 5, 0, "me")
        sent = redrive_matching(bench.settings.broker("replay"), bench.stores.service(bench.publisher), turn, bulk)

    assert sent == bench.depth(names.WORK_QUEUE) == 5
    assert len(bench.dead_letters()) == MOST - 5


def test_an_interrupted_one_that_was_stopped_does_not_come_back(bench):
    job = BulkRedrive(DeadLetterFilter(), 10, 0, "me")
    bench.stores.bulk.add(job)
    bench.stores.bulk.shorten(job, 4)
    (rest,) = bench.stores.bulk.all()
    stopped = bench.stores.bulk.stop(job.id)
    bench.stores.bulk.shorten(rest, 1)

    assert (rest.limit, rest.id, stopped) == (6, job.id, rest)
    assert bench.stores.bulk.all() == []
