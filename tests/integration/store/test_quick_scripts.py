"""A script's first part, for the usual case, does what the whole script does."""

import json
import re
import uuid
from pathlib import Path

import pytest

from dispatch.protocol.record import State
from dispatch.store import scripts as module
from dispatch.store.claims import ClaimAnswer
from dispatch.store.hops import FIRST_HOPS
from dispatch.store.scripts import Script, scripts
from support.case import Case

FOLDER = Path(module.__file__).parent / "lua" / "task"
QUICK = {path.stem.removeprefix(module.QUICK): path.read_text() for path in FOLDER.glob(f"{module.QUICK}*.lua")}


def without_quick_parts(stores):
    """Scripts as they would be without them."""
    own = {}
    for name, script in stores.redis._scripts.items():
        source = script.source.replace(QUICK.get(name, "-- none"), "")
        own[name] = Script(name, f"{source}\n-- {uuid.uuid4()}")
    stores.redis._scripts = own
    stores.redis._by_sha = {script.sha: script for script in own.values()}


@pytest.fixture
def both(settings):
    """A task in the hands of quick scripts, and the same one without them."""
    quick, whole = Case(settings), Case(settings)
    whole.message = quick.message.with_headers(id=whole.task_id)
    without_quick_parts(whole.stores)
    yield quick, whole
    quick.close()
    whole.close()


def left(case):
    """All that Redis has of a task, without its times and its random ids."""
    keys = case.stores.redis.keys.task(case.task_id)
    record = {
        name: text for name, text in case.redis.hgetall(keys.record).items() if name not in {*FIRST_HOPS, "decision"}
    }
    hops = [
        {name: value for name, value in hop.items() if name not in {"at", "until"}}
        for hop in case.store.hops(case.task_id)
    ]
    message = case.redis.get(keys.message)
    lease = case.redis.exists(keys.lease)
    lives = [case.redis.ttl(key) > 0 for key in (keys.record, keys.lease, keys.message)]
    return fixed(record), fixed(hops), fixed(message), lease, lives


def fixed(value):
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", json.dumps(value, sort_keys=True))
    text = re.sub(r"\b\d{13}\b", "time", text)
    return json.loads(re.sub(r'"(owner|fence|doneFence)": "[^"]*"', r'"\1": "-"', text))


def run(case):
    return case.claims.claim(case.message, case.ticket(), 4).answer


def test_a_task_that_runs_at_once_and_succeeds(both):
    seen = []
    for case in both:
        steps = []
        case.store.accept(case.message, max_attempts=4, idempotency_key=None)
        steps.append(left(case))
        case.store.mark_published(
            case.message, queue="robot.task.q", max_attempts=4, idempotency_key=None, confirmMs=1.5
        )
        steps.append(left(case))
        ticket = case.ticket()
        assert case.claims.claim(case.message, ticket, 4).answer is ClaimAnswer.RUN
        steps.append(left(case))
        assert case.claims.complete(case.message, ticket, {"a": 1}, 4)
        steps.append(left(case))
        seen.append((steps, case.record().revision, case.kinds()))
        assert case.claims.complete(case.message, ticket, {"a": 1}, 4)  # its answer was lost: once is enough
        assert run(case) is ClaimAnswer.DONE

    quick, whole = seen
    for one, other in zip(quick[0], whole[0], strict=True):
        assert one == other
    assert quick[1:] == whole[1:]


@pytest.mark.parametrize(
    "before", ["nothing", "lost run", "decided", "cancelled", "a newer seq", "progress", "a foreign lease"]
)
def test_what_is_not_usual_is_left_to_the_whole_script(both, before):
    seen = []
    for case in both:
        case.accept()
        keys = case.stores.redis.keys.task(case.task_id)
        if before == "lost run":
            case.run()
            case.lapse()
        elif before == "decided":
            case.decide(case.run())
        elif before == "cancelled":
            case.redis.hset(keys.record, "state", State.CANCELLED.value)
        elif before == "a newer seq":
            case.redis.hset(keys.record, "seq", 1)
        elif before == "a foreign lease":
            case.redis.set(keys.lease, "other", px=60_000)
        ticket = case.ticket()
        answer = case.claims.claim(case.message, ticket, 4).answer
        steps = [str(answer), left(case)]
        if answer is ClaimAnswer.RUN:
            if before == "progress":
                case.claims.progress(case.task_id, ticket.fence, {"percent": 10, "message": "x"})
            steps += [case.claims.complete(case.message, ticket, {"a": 1}, 4), left(case)]
        seen.append(steps)

    assert seen[0] == seen[1]


def test_the_first_parts_are_those_of_the_hot_path():
    assert QUICK.keys() == {"mark_published", "claim", "complete"}
    assert all(text in scripts()[name].source for name, text in QUICK.items())
