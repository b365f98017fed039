"""A redrive with another payload: wherever it is cut off, one payload runs, and it is the one that was recorded."""

import json

import pytest

from dispatch import crashpoints
from dispatch.broker.publisher import Publisher
from dispatch.deadletters.service import NotDead
from dispatch.errors import NotSent
from dispatch.protocol import names
from dispatch.protocol.mending import Mend
from dispatch.protocol.record import State
from support.processes import Forked
from support.proxy import Proxy
from support.sweeping import sweeping
from support.waiting import eventually
from support.worker import open_bench, running_worker

#: How soon a task that is silent is sent again.
SOON = {"queue_ttl": 0.1, "sweep_margin": 0.1, "lease": 0.5}

MEND = Mend({"message": "mended", "failTimes": 1})


@pytest.fixture
def dead(bench):
    """A task that has died."""
    with running_worker(bench.settings):
        task_id = bench.submit("echo", {"message": "as it was", "permanent": True})
        bench.finished(task_id)
        bench.drained(names.RECORDER_QUEUE)
    return task_id


def _redrive(settings, task_id):
    with open_bench(settings) as bench:
        bench.stores.service(bench.publisher).redrive(task_id, by="test", mend=MEND)


def _payload(record):
    return json.loads(record.message.body)[0][0]


@pytest.mark.parametrize("point", ["redrive.recorded", "redrive.published", "redrive.finished"])
def test_a_mended_redrive_dies_and_its_payload_runs_once(bench, dead, monkeypatch, tmp_path, point):
    marker = tmp_path / "died-here"
    monkeypatch.setenv(crashpoints.VARIABLE, f"{point}={marker}")
    ended = Forked(_redrive, bench.settings, dead).wait(60)
    stored = bench.store.whole(dead)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.store.get(dead).state is State.SUCCEEDED, 40)
        eventually(lambda: bench.depth(names.DEAD_QUEUE) == 0, 20, "the letter of before is gone")
        bench.drained()
    record = bench.store.get(dead)

    assert (ended, marker.exists()) == (-9, True)
    assert (_payload(stored), stored.message.headers["x-effect-key"]) == (MEND.payload, f"{dead}.1")
    assert (record.cycle, record.attempt, record.result["message"]) == (1, 2, "mended")
    assert bench.hops(dead).count("succeeded") == 1


@pytest.mark.parametrize("mend", [Mend(), MEND, Mend({"message": "another"})])
def test_a_repeat_after_the_cut_sends_what_was_recorded_and_refuses_anything_else(
    bench, dead, monkeypatch, tmp_path, mend
):
    monkeypatch.setenv(crashpoints.VARIABLE, f"redrive.recorded={tmp_path / 'died-here'}")
    Forked(_redrive, bench.settings, dead).wait(60)
    monkeypatch.delenv(crashpoints.VARIABLE)
    service = bench.stores.service(bench.publisher)
    if mend.payload in (None, MEND.payload):
        assert service.redrive(dead, by="test", mend=mend).cycle == 1
    else:
        with pytest.raises(NotDead):
            service.redrive(dead, by="test", mend=mend)
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.store.get(dead).state is State.SUCCEEDED, 40)

    assert bench.store.get(dead).result["message"] == "mended"


def test_a_broker_that_refuses_it_leaves_the_dead_letter_with_its_payload_and_its_bytes(bench, dead):
    before, held = bench.store.whole(dead), bench.store.usage.read("local")
    with Proxy.to(bench.settings.broker("replay")) as proxy:
        publisher = Publisher(proxy.url, timeout=1)
        eventually(publisher.ready, 10, "connected")
        proxy.refuse()
        proxy.cut()
        eventually(lambda: not publisher.ready(), 10, "not connected")
        with pytest.raises(NotSent):
            bench.stores.service(publisher).redrive(dead, by="test", mend=Mend({"message": "y" * 5_000}))
        publisher.close()
    after = bench.store.whole(dead)

    assert (after.state, after.cycle, after.decision) == (State.DEAD_LETTERED, 0, None)
    assert (after.message, _payload(after)["message"]) == (before.message, "as it was")
    assert bench.store.usage.read("local") == held


def test_the_next_death_has_the_mended_payload_and_a_redrive_of_it_keeps_the_key(bench, dead):
    mend = Mend({"message": "y" * 5_000, "permanent": True})
    held = bench.store.usage.read("local").bytes
    service = bench.stores.service(bench.publisher)
    with running_worker(bench.settings):
        service.redrive(dead, by="test", mend=mend)
        eventually(lambda: (r := bench.store.get(dead)).cycle == 1 and r.is_dead_letter, 30)
        bench.drained(names.RECORDER_QUEUE)
        (letter,) = bench.settled_dead_letters(1)
        more = bench.store.usage.read("local").bytes - held
        service.redrive(dead, by="test")
        eventually(lambda: (r := bench.store.get(dead)).cycle == 2 and r.is_dead_letter, 30)
        bench.drained(names.RECORDER_QUEUE)
        (again,) = bench.settled_dead_letters(1)

    assert [json.loads(each.body)[0][0] for each in (letter, again)] == [mend.payload] * 2
    assert [each.headers["x-effect-key"] for each in (letter, again)] == [f"{dead}.1"] * 2
    assert 4_000 < more < 8_000
    assert [hop.get("payloadEdited") for hop in bench.store.hops(dead) if hop["kind"] == "redriven"] == [True, None]


def test_a_mended_copy_that_the_broker_lost_is_sent_again_as_it_was_mended(bench, dead):
    service = bench.stores.service(bench.publisher)
    service.redrive(dead, by="test", mend=MEND)
    bench.purge(names.WORK_QUEUE)
    with sweeping(bench, **SOON) as sweep:
        eventually(lambda: sweep(dead) or "resent" in bench.hops(dead), 20, "it is sent again")
    with running_worker(bench.settings, abrupt=True):
        eventually(lambda: bench.store.get(dead).state is State.SUCCEEDED, 40)

    assert bench.store.get(dead).result["message"] == "mended"
