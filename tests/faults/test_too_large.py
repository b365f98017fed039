"""P4: a body that is larger than workers take fills no memory, and ends in the DLQ, whole, with its reason."""

import json
import re
import uuid
from pathlib import Path

import pytest
from amqp.exceptions import PreconditionFailed

from dispatch.deadletters.bulk import BulkRedrive, discard_matching, redrive_matching
from dispatch.deadletters.service import TooLarge
from dispatch.protocol import names
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.message import MAX_MESSAGE, TOO_LARGE
from dispatch.protocol.record import State
from support import processes
from support.waiting import eventually
from support.worker import environment, running_worker

MIB = 1_048_576

#: Bytes of bodies, forty of them; a worker that kept them would grow by their sum. RabbitMQ 4 itself refuses the largest.
SIZES = [100 * MIB, 20 * MIB, 20 * MIB, *[MAX_MESSAGE + 1] * 37]


def _headers(**changes):
    given = {"task": "echo", "id": str(uuid.uuid4()), "retries": 0, **changes}
    return {name: value for name, value in given.items() if value is not ...}


def _body(size, message="x"):
    """A valid task, as long as that."""
    start = json.dumps([[{"message": message}], {}, None])[:-1].encode()
    return start + b" " * (size - len(start) - 1) + b"]"


def _send_large(bench, sizes=SIZES):
    """Those that the broker took."""
    taken = []
    for number, size in enumerate(sizes):
        try:
            bench.send(_body(size, str(number)), _headers(**({"id": ...} if number % 2 else {})))
        except PreconditionFailed:
            assert size > 16 * MIB
        else:
            taken.append(size)
    return taken


def _peak(pid):
    """Bytes of memory that a process has had at most."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1_024


def _reported(dead_letter):
    return int(dead_letter.text(TOO_LARGE).split()[0])


def _celery(bench, *words):
    return processes.run("celery", ["-A", "celery_app", "dlq", *words], environ=environment(bench.settings))


def test_forty_large_messages_fill_no_memory_and_stop_no_other_task(bench):
    with running_worker(bench.settings) as worker:
        bench.finished(bench.submit("echo", {"message": "warm"}))
        before = _peak(worker.process.pid)
        taken = _send_large(bench)
        largest = _headers()
        bench.send(_body(MAX_MESSAGE), largest)  # as large as a body may be
        good = bench.finished(bench.submit("echo", {"message": "x"}), 60)
        ran = bench.finished(largest["id"], 60)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == len(taken), 60, "every one of them is a dead letter")
        eventually(lambda: len(_dead(bench)) == len(taken), 60, "and is recorded")
        grown = _peak(worker.process.pid) - before

        assert worker.process.poll() is None
    dead_letters, records = bench.dead_letters(), _dead(bench)

    assert (good.state, ran.state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert sorted(map(_reported, dead_letters)) == sorted(taken)
    assert {(record.state, record.dead_reason, record.error.type) for record in records} == {
        (State.DEAD_LETTERED, "too-large", "too-large")
    }
    assert {record.task_id for record in records} == {dead_letter.dead_letter_id for dead_letter in dead_letters}
    assert grown < 96 * MIB, f"{grown / MIB:.0f} MiB"


def _dead(bench):
    return bench.stores.dead_letters.list(limit=200).items


def test_a_large_dead_letter_is_shown_kept_by_a_redrive_and_can_be_discarded(bench):
    sizes = [MAX_MESSAGE + 1, MAX_MESSAGE + 2, 12 * MIB]
    with running_worker(bench.settings):
        small = bench.submit("echo", {"message": "x", "permanent": True})
        _send_large(bench, sizes)
        for end in (b"1", b"2"):  # without an id, and the same but for its last byte
            bench.send(_body(MAX_MESSAGE + 2) + end, _headers(id=...))
        eventually(lambda: len(_dead(bench)) == 6, 60, "all are recorded")
        eventually(lambda: bench.depth(names.RECORDER_QUEUE) == 0, 20, "the tap is read")
    verbs = bench.stores.service(bench.publisher)
    large = next(record.task_id for record in _dead(bench) if record.dead_reason == "too-large")
    listed = _celery(bench, "list", "--error-type", "too-large", "--json").stdout
    shown = json.loads(_celery(bench, "show", large).stdout)
    with pytest.raises(TooLarge):
        verbs.redrive(large, by="me")
    with bench.stores.lock().held(20) as turn:
        sent = redrive_matching(
            bench.settings.broker("replay"), verbs, turn, BulkRedrive(DeadLetterFilter(), 10, 0, "me")
        )
    kept = sorted(map(_reported, bench.dead_letters()))
    with bench.stores.lock().held(20) as turn:
        gone = discard_matching(
            bench.settings.broker("replay"), verbs, turn, DeadLetterFilter(error_type="too-large"), by="me"
        )

    assert len(listed.splitlines()) == 5
    assert shown["deadReason"] == "too-large"
    assert re.match(r"the body has \d+ bytes, more than 4194304", shown["error"]["detail"])
    assert len(shown["message"]["body"]) < 2_000
    assert (sent, bench.store.get(small).cycle) == (1, 1)
    assert kept == sorted([*sizes, MAX_MESSAGE + 3, MAX_MESSAGE + 3])
    assert (gone, bench.depth(names.DEAD_QUEUE)) == (5, 0)
