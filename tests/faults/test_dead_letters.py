"""P4: letters are redriven or discarded, and none is lost or doubled on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection

from dispatch.broker.publisher import Publisher
from dispatch.deadletters.bulk import BulkRedrive, redrive_matching
from dispatch.deadletters.janitor import MISSES, clear_stale
from dispatch.deadletters.service import NotDead
from dispatch.deadletters.walk import walk
from dispatch.deadletters.walk_lock import WalkInProgress
from dispatch.errors import InDoubt, NotSent, PublishError
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy, redriven_copy
from dispatch.protocol.dead_letters import DeadLetterFilter, Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import ACCEPTED_AT, CYCLE, SEQ, Message
from dispatch.protocol.record import State
from support.proxy import DOWN, UP, Proxy
from support.waiting import eventually
from support.worker import ROOT, environment, running_worker

PAYLOAD = {"message": "x"}


@pytest.fixture
def letters(desk):
    """The operator's verbs."""
    return desk.stores.service(desk.publisher)


def _letter(type="echo", error="boom", payload=None, **headers):
    """A letter as the router sends it, without a record."""
    given = {
        "id": new_task_id(), "task": type, "retries": 0, CYCLE: 0, SEQ: 1, "x-attempt": 1, "x-principal": "ada",
        ACCEPTED_AT: int(time.time() * 1_000), **headers,
    }  # fmt: skip
    body = json.dumps([[payload or PAYLOAD], {}, {}]).encode()
    message = Message(body, given, routing_key=names.routing_key(type))
    return dead_copy(message, Reason.PERMANENT, "it broke", error_type=error).message


def _post(desk, letters):
    for letter in letters:
        desk.publisher.publish(letter, names.DEAD_EXCHANGE, letter.routing_key)


def _record(desk, letters):
    """As the recorder does."""
    for letter in letters:
        desk.stores.dead_letters.record(letter, reason="permanent", max_attempts=4)


def _celery(desk, *arguments, **options):
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "dlq", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(desk.settings), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )  # fmt: skip


def _dlq(desk, *arguments, code=0):
    process = _celery(desk, *arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, (output, errors)
    return output + errors


def test_a_redriven_letter_runs_in_its_next_cycle_with_the_same_id_and_trace(desk, letters):
    with running_worker(desk.settings, abrupt=True):
        task_id = desk.submit("echo", {"message": "x", "permanent": True})
        dead = desk.finished(task_id)
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 1, 10, "the letter is there")
        record = letters.redrive(task_id, by="me")
        again = eventually(
            lambda: (found := desk.store.get(task_id)).state is State.DEAD_LETTERED and found.cycle == 1 and found, 20
        )
        # The first cycle's letter goes, the second one's comes.
        eventually(
            lambda: [letter.cycle for letter in desk.letters()] == [1], 20, "the janitor took the old letter out"
        )
        desk.drained()

    assert record.cycle == 1
    assert again.trace_id == dead.trace_id
    assert desk.hops(task_id).count("started") == 2
    assert desk.hops(task_id).count("redriven") == 1


def test_a_letter_of_a_task_that_has_since_succeeded_is_not_redriven(desk, letters):
    letter = _letter()
    _post(desk, [letter, letter])  # and a second copy of it
    _record(desk, [letter])
    with running_worker(desk.settings):
        letters.redrive(letter.task_id, by="me")
        desk.finished(letter.task_id)
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 0, 20, "both letters are gone")
        with pytest.raises(NotDead):
            letters.redrive(letter.task_id, by="me")
        desk.drained()
    _post(desk, [letter])  # it turns up once more
    output = _dlq(desk, "redrive", letter.task_id, code=1)

    assert "stale, removed" in output
    assert desk.depth(names.DEAD_QUEUE) == 0
    assert desk.hops(letter.task_id).count("succeeded") == 1


def test_a_broker_that_refuses_a_redrive_leaves_the_letter_and_one_that_is_silent_leaves_no_second_run(desk):
    refused, silent = _letter(), _letter()
    _post(desk, [refused, silent])
    _record(desk, [refused, silent])
    with Proxy.to(desk.settings.broker("replay")) as proxy:
        publisher = Publisher(proxy.url, timeout=1)
        eventually(publisher.ready, 10, "connected")
        verbs = desk.stores.service(publisher)
        proxy.hold(DOWN)
        with pytest.raises(InDoubt):
            verbs.redrive(silent.task_id, by="me")
        doubt = desk.store.get(silent.task_id)
        proxy.release()
        proxy.refuse()
        proxy.cut()
        eventually(lambda: not publisher.ready(), 10, "not connected")
        with pytest.raises(NotSent):
            verbs.redrive(refused.task_id, by="me")
        record = desk.store.get(refused.task_id)
        publisher.close()

    assert (record.state, record.cycle, record.decision) == (State.DEAD_LETTERED, 0, None)
    assert (doubt.state, doubt.cycle) == (State.SCHEDULED, 1)
    assert len(desk.letters()) == 2
    with running_worker(desk.settings, abrupt=True):
        # The doubtful copy was stored: it runs; if the sweeper sends another one, that one is fenced off.
        finished = desk.finished(silent.task_id)
        eventually(lambda: [letter.task_id for letter in desk.letters()] == [refused.task_id], 20, "one letter stays")
        eventually(lambda: desk.store.get(silent.task_id).before_redrive is None, 20, "settled")
        desk.drained()

    assert finished.state is State.SUCCEEDED
    assert desk.hops(silent.task_id).count("started") == 1


def test_a_second_copy_of_a_letter_that_comes_after_a_refused_redrive_is_taken_out(desk):
    letter = _letter()
    records = desk.stores.dead_letters
    with running_worker(desk.settings):
        _post(desk, [letter])  # its confirm was lost with the broker, so the worker will publish it again
        eventually(
            lambda: (found := desk.store.get(letter.task_id)) and found.is_dead_letter, 10, "the tap has seen it"
        )
        copy = redriven_copy(letter)
        records.redrive(letter, copy, by="me", max_attempts=4)
        records.undo_redrive(copy)  # the broker was away for that, too
        eventually(lambda: not records.flagged(), 20, "the janitor has looked, and found one letter")
        _post(desk, [letter])
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 2, 10, "both are there")
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 1, 20, "the second one is taken out")
        desk.drained()

    assert [found.task_id for found in desk.letters()] == [letter.task_id]
    assert desk.store.get(letter.task_id).state is State.DEAD_LETTERED


def test_a_redrive_that_died_in_the_middle_is_finished_by_the_workers(desk):
    unpublished, published = _letter(), _letter()
    _post(desk, [unpublished, published])
    _record(desk, [unpublished, published])
    records = desk.stores.dead_letters
    for letter in (unpublished, published):
        records.redrive(letter, redriven_copy(letter), by="me", max_attempts=4)
    copy = redriven_copy(published)
    desk.publisher.publish(copy.message, copy.exchange, copy.routing_key)  # killed before it could say so
    with running_worker(desk.settings, abrupt=True):
        records = [desk.finished(letter.task_id, 30) for letter in (unpublished, published)]
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 0, 20, "the letters are gone")
        desk.drained()

    assert [(record.state, record.cycle, record.error) for record in records] == [(State.SUCCEEDED, 1, None)] * 2
    assert [desk.hops(record.task_id).count("started") for record in records] == [1, 1]


def test_the_command_lists_shows_redrives_and_discards(desk):
    good, bad = _letter(error="first"), _letter(error="second")
    nobody = dead_copy(Message(b"{", {}, routing_key="robot.task.dispatch.x"), Reason.UNDECODABLE, "no").message
    nobody = nobody.with_headers(**{"x-dead-id": new_task_id()})
    every = [good, bad, nobody]
    _post(desk, every)
    _record(desk, every)
    with ThreadPoolExecutor() as pool:
        asked = [
            pool.submit(_dlq, desk, *words.split())
            for words in (
                "list --json",
                "list --error-type second",
                f"show {bad.task_id}",
                "redrive --type echo --dry-run",
            )
        ]
    lines, table, text, dry = (each.result() for each in asked)
    listed, shown = [json.loads(line) for line in lines.splitlines()], json.loads(text)
    sent = _dlq(desk, "redrive", "--error-type", "first")
    gone = _dlq(desk, "discard", bad.task_id)

    assert {line["taskId"] for line in listed} == {letter.task_id for letter in every}
    assert bad.task_id in table
    assert good.task_id not in table
    assert (shown["error"]["type"], shown["deadReason"]) == ("second", "permanent")
    assert shown["message"]["body"] == bad.body.decode()
    assert "2 letters would be redriven" in dry
    assert f"{good.task_id}  sent, cycle 1\n1 redriven" in sent
    assert "1 discarded" in gone
    assert [letter.task_id for letter in desk.letters()] == [nobody.task_id]
    assert desk.state(bad.task_id) is State.DEAD_LETTERED
    assert "no dead letter of task" in _dlq(desk, "show", bad.task_id, code=2)
    assert desk.depth(names.WORK_QUEUE) == 1


def test_letters_whose_records_are_gone_or_late_are_redriven_all_the_same(desk, letters):
    without_record = _letter()
    task_id = desk.submit("echo", PAYLOAD)
    late = dead_copy(desk.message(task_id), Reason.EXPIRED, "too late").message  # no tap has seen it
    _post(desk, [without_record, late])
    desk.purge(names.WORK_QUEUE)
    with desk.stores.lock().held() as turn:
        sent = redrive_matching(
            desk.settings.broker("replay"), letters, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
        )

    assert sent == 2
    assert desk.depth(names.DEAD_QUEUE) == 0
    assert [desk.store.get(each).cycle for each in (task_id, without_record.task_id)] == [1, 1]
    assert desk.depth(names.WORK_QUEUE) == 2


def test_a_letter_that_is_not_the_last_word_on_a_task_that_runs_stays(desk, letters):
    with running_worker(desk.settings, abrupt=True):
        task_id = desk.submit("echo", {"message": "x", "sleepSeconds": 3})
        desk.wait_for(task_id, State.RUNNING)
        _post(desk, [dead_copy(desk.message(task_id), Reason.EXPIRED, "too late").message])
        with desk.stores.lock().held(10) as turn:
            sent = redrive_matching(
                desk.settings.broker("replay"), letters, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
            )
        kept = desk.depth(names.DEAD_QUEUE)
        record = desk.finished(task_id)
        # The tap sees that the task has succeeded without it, and the janitor takes it out.
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 0, 20, "the letter is gone")

    assert (sent, kept) == (0, 1)
    assert record.state is State.SUCCEEDED


def test_one_walks_at_a_time_and_the_others_are_refused(desk):
    _post(desk, [_letter()])
    with desk.stores.lock().held(), pytest.raises(WalkInProgress), desk.stores.lock().held(0.3):
        pass
    with desk.stores.lock().held() as turn:
        seen = []
        walk(desk.settings.broker("replay"), turn, lambda letter: bool(seen.append(letter)))

    assert len(seen) == 1


def test_a_job_is_done_by_one_of_many_workers_to_its_limit_and_in_order(desk, letters):
    many = [_letter() for _ in range(30)]
    _post(desk, many)
    _record(desk, many)
    with running_worker(desk.settings), running_worker(desk.settings):
        bulk = BulkRedrive(DeadLetterFilter(type="echo"), 20, 0, "me")
        found = letters.count(bulk.filter, most=bulk.limit)
        desk.stores.bulk.add(bulk)
        for letter in many[:20]:
            desk.wait_for(letter.task_id, State.SUCCEEDED, 40)
        eventually(lambda: desk.stores.bulk.next() is None, 20, "the job is done")
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 10, 20, "the others stay")
        desk.drained()

    assert found == 20
    assert {letter.task_id for letter in desk.letters()} == {letter.task_id for letter in many[20:]}
    assert {desk.hops(letter.task_id).count("started") for letter in many[:20]} == {1}


def test_a_job_that_was_interrupted_goes_on_with_what_is_left_of_its_limit(desk):
    many = [_letter() for _ in range(20)]
    _post(desk, many)
    _record(desk, many)
    with Proxy.to(desk.settings.broker("replay")) as proxy:
        publisher = Publisher(proxy.url, timeout=1)
        eventually(publisher.ready, 10, "connected")
        janitor = desk.stores.janitor(publisher)
        desk.stores.bulk.add(BulkRedrive(DeadLetterFilter(), 12, 0, "me"))

        def fifth(direction, data):
            if direction == UP and many[5].task_id.encode() in data:
                proxy.refuse()
                proxy.cut()

        proxy.watch = fifth
        with pytest.raises(PublishError):
            janitor.step()
        left = desk.stores.bulk.next()
        proxy.watch = None
        proxy.admit()
        eventually(publisher.ready, 10, "connected again")
        janitor.step()
        done = desk.stores.bulk.next()
        publisher.close()

    assert (left.limit, done) == (7, None)
    assert len([letter for letter in many if desk.store.get(letter.task_id).cycle == 1]) == 12


#: Letters in the DLQ: more than a quorum queue gives one consumer unacked.
MANY = int(os.environ.get("ROBOT_TEST_LETTERS", "2500"))


def test_a_redrive_by_type_walks_past_all_others_and_leaves_them(desk):
    others = [_letter("robot.clean", payload={}) for _ in range(MANY)]
    meant = [_letter("echo") for _ in range(100)]
    _post_many(desk, [*others, *meant])
    began = time.monotonic()
    process = _celery(desk, "redrive", "--type", "echo")
    output, errors = process.communicate(timeout=100)
    seconds = time.monotonic() - began

    assert process.returncode == 0, errors
    assert output.endswith("100 redriven\n")
    assert [line.split()[0] for line in output.splitlines()[:-1]] == [letter.task_id for letter in meant]
    assert sorted(letter.task_id for letter in desk.letters()) == sorted(letter.task_id for letter in others)
    assert desk.depth(names.WORK_QUEUE) == 100
    assert seconds < 60, f"{MANY} letters walked, 100 redriven in {seconds:.1f} s"


def test_a_redrive_that_is_killed_in_the_middle_loses_and_doubles_nothing(desk):
    many = [_letter() for _ in range(300)]
    _post_many(desk, many)
    process = _celery(desk, "redrive", "--all", start_new_session=True)
    eventually(lambda: desk.depth(names.WORK_QUEUE) > 50, 30, "it is in the middle", interval=0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = desk.depth(names.WORK_QUEUE)
    eventually(lambda: desk.depth(names.DEAD_QUEUE) >= len(many) - done - 1, 10, "its letters are back")
    _dlq(desk, "redrive", "--all")
    with running_worker(desk.settings, abrupt=True):
        states = {desk.finished(letter.task_id, 60).state for letter in many}
        eventually(lambda: desk.depth(names.DEAD_QUEUE) == 0, 20, "every letter is gone")
        desk.drained()

    assert done < len(many)
    assert states == {State.SUCCEEDED}
    assert {desk.store.get(letter.task_id).cycle for letter in many} == {1}
    assert {desk.hops(letter.task_id).count("succeeded") for letter in many} == {1}


def _post_many(desk, letters):
    """Without waiting for each confirm."""
    desk.publisher.publish(letters[0], names.DEAD_EXCHANGE, letters[0].routing_key)
    link = desk.publisher._connection
    until = time.monotonic() + 60
    futures = [link.publish(letter, names.DEAD_EXCHANGE, letter.routing_key, until) for letter in letters[1:]]
    for future in futures:
        future.result(60)


def test_a_letter_that_another_consumer_holds_while_the_janitor_walks_is_taken_out_later(desk):
    letter = _letter()
    _post(desk, [letter])
    _record(desk, [letter])
    records, copy, missed = desk.stores.dead_letters, redriven_copy(letter), {}
    records.redrive(letter, copy, by="me", max_attempts=4)
    records.finish_redrive(copy)

    with desk.stores.lock().held() as turn:
        with Connection(desk.settings.broker("admin")) as connection:
            held = connection.default_channel.basic_get(names.DEAD_QUEUE)  # as the management UI does
            taken = [clear_stale(desk.settings.broker("replay"), turn, desk.store, records, missed)]
        taken.append(clear_stale(desk.settings.broker("replay"), turn, desk.store, records, missed))
        marked = [records.flagged()]
        records.finish_redrive(copy)  # marked once more: there is no letter any more
        for _ in range(MISSES):
            marked.append(records.flagged())
            clear_stale(desk.settings.broker("replay"), turn, desk.store, records, missed)
        marked.append(records.flagged())

    assert held is not None
    assert taken == [0, 1]
    assert [bool(each) for each in marked] == [False, *[True] * MISSES, False]
    assert missed == {}


@pytest.mark.parametrize("to_the_end", [True, False], ids=["to the end", "cut off"])
def test_a_redrive_that_is_confirmed_behind_the_walks_back_gets_its_letter_taken_out(desk, to_the_end):
    letter = _letter()
    _post(desk, [letter])
    _record(desk, [letter])
    records, copy = desk.stores.dead_letters, redriven_copy(letter)
    records.redrive(letter, copy, by="me", max_attempts=4)

    class Late:
        briefs = desk.store.briefs

        def get(self, task_id):
            record = desk.store.get(task_id)
            (records.finish_redrive if to_the_end else desk.stores.handovers.hand_over)(copy)
            return record

    with desk.stores.lock().held() as turn:
        taken = [clear_stale(desk.settings.broker("replay"), turn, store, records) for store in (Late(), desk.store)]

    assert taken == [0, 1]
    assert records.flagged() == {}
    assert desk.depth(names.DEAD_QUEUE) == 0
