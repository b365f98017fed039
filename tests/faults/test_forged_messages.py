"""P1, P3: a client that may publish to our exchanges can't act as the gateway or a worker."""

import json
import types

import amqp
import pytest
from click.testing import CliRunner
from kombu import Connection
from pydantic import SecretStr

from dispatch.cli.dlq import dlq
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.record import State
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import open_bench, running_worker

OLD, NEW = f"2026a:{'o' * 40}", f"2026b:{'n' * 40}"
PAYLOAD = {"message": "x"}
FORGED = {"message": "forged"}


@pytest.fixture(scope="module")
def open_system(module_settings):
    """A worker without keys."""
    with open_bench(module_settings) as bench, running_worker(module_settings, abrupt=True):
        yield bench


def _forge(bench, original, exchange=names.TASK_EXCHANGE, payload=FORGED, **headers):
    """Publish a copy of a task's message as a stranger would: with other headers, another body, no key of ours."""
    forged = original.with_headers(**{name.replace("_", "-"): value for name, value in headers.items()})
    raw = amqp.Message(
        json.dumps([[payload], {}, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        application_headers=dict(forged.headers),
    )
    with Connection(bench.settings.broker("admin")) as connection:
        channel = connection.default_channel
        channel.confirm_select()
        channel.basic_publish_confirm(raw, exchange, names.routing_key("echo"))


def _unauthentic(bench):
    """The dead letters with that reason."""
    return [each for each in bench.dead_letters() if each.text("x-dead-reason") == Reason.UNAUTHENTIC]


def _dlq(bench, *words):
    """`celery dlq`, in this process: its exit code and its output."""
    done = CliRunner().invoke(dlq, words, obj=types.SimpleNamespace(app=bench.celery))
    return done.exit_code, done.output


def _succeeded(bench):
    task_id = bench.submit("echo", PAYLOAD)
    return bench.finished(task_id)


def test_without_keys_no_claim_overwrites_an_outcome_or_jumps_ahead(open_system):
    bench = open_system
    done, buried, waiting = _succeeded(bench), _succeeded(bench), bench.submit("echo", {"message": "x", "failTimes": 3})
    bench.wait_for(waiting, State.RETRY_WAIT)
    _forge(bench, bench.message(waiting), x_seq=2**53 - 1)
    _forge(bench, bench.message(done.task_id), x_cycle=1, x_seq=1)
    letter = dead_copy(bench.message(buried.task_id), Reason.PERMANENT, "forged").message
    _forge(bench, letter, names.DEAD_EXCHANGE, x_cycle=1, x_seq=1)
    endless = dead_copy(bench.message(waiting, id=new_task_id()), Reason.PERMANENT, "forged").message
    _forge(bench, endless, names.DEAD_EXCHANGE, x_cycle=2**53 - 1)
    eventually(lambda: bench.depth(names.DEAD_QUEUE) == 4, 20, "all four are in the DLQ")
    bench.drained(names.RECORDER_QUEUE)
    ended = bench.finished(waiting, 30)
    refused = len(_unauthentic(bench))
    code, text = _dlq(bench, "redrive", endless.task_id)
    left = sorted(each.task_id for each in bench.dead_letters())

    assert [bench.store.get(record.task_id) for record in (done, buried)] == [done, buried]
    assert (ended.state, ended.result["message"], ended.cycle) == (State.SUCCEEDED, "x", 0)
    assert refused == 2
    assert bench.store.get(endless.task_id) is None
    assert (code, "kept: unauthentic" in text) == (1, True), text
    assert left == sorted([done.task_id, buried.task_id, waiting, endless.task_id])


def test_without_keys_no_forged_id_or_time_keeps_a_client_or_an_operator_from_working(open_system):
    """An id that is a name of ours was taken for a principal's sums, and a time without a date ended every list."""
    bench = open_system
    letter = dead_copy(bench.message(_succeeded(bench).task_id), Reason.PERMANENT, "forged").message
    claims = {"x_principal": "local", "x_accepted_at": 2**62, "x_failed_at": -(2**62), "retries": 9}
    listed = lambda: {record.task_id for record in bench.stores.dead_letters.list(limit=200).items}  # noqa: E731
    before = listed()
    for task_id in ("open", "dead", "bytes", new_task_id()):
        _forge(bench, letter, names.DEAD_EXCHANGE, id=task_id, **claims)
    eventually(lambda: len(listed() - before) == 4, 20, "all four are recorded")
    with gateway(bench.settings) as client:
        shown = client.get("/v1/dead-letters?limit=200")
        submitted = client.post("/v1/tasks", json={"type": "echo", "payload": PAYLOAD})
        tasks = client.get("/v1/tasks")

    assert [answer.status_code for answer in (shown, submitted, tasks)] == [200, 202, 200]
    assert {"open", "dead", "bytes"} < {one["taskId"] for one in shown.json["items"]}


@pytest.fixture
def keyed(settings):
    """Settings with two keys, the new one first."""
    return _with_keys(settings, NEW, OLD)


def _with_keys(settings, *keys):
    return settings.model_copy(update={"message_keys": SecretStr(",".join(keys))})


#: What a stranger may do to a copy that is on its way; an id of their own for the letters that have no task.
FORGERIES = {
    "another payload": {},
    "another cycle": {"x_cycle": 1},
    "another seq": {"x_seq": 1},
    "another principal": {"x_principal": "eve"},
    "no such task": {"id": "01a00000-0000-7000-8000-000000000000"},
    "no usable id": {"id": ""},
    "a reason": {"x_dead_reason": "permanent"},
}


def test_with_keys_only_what_is_signed_changes_a_record_also_in_the_middle_of_a_rotation(keyed):
    with open_bench(keyed) as bench, gateway(keyed) as client:
        queued = [bench.submit("echo", PAYLOAD) for _ in range(3)]
        originals = [bench.message(task_id) for task_id in queued]
        signed = keyed.signing.sign(originals[0])
        for forgery in FORGERIES.values():
            _forge(bench, originals[0], **forgery)  # not signed
            _forge(bench, signed, **forgery)  # with a signature that was seen somewhere
            _forge(bench, originals[1], names.DEAD_EXCHANGE, **forgery)
        before = bench.store.get_many(queued)
        # Not killed: what it held would come back, and messages are counted.
        with running_worker(_with_keys(keyed, OLD, NEW)) as worker:
            ended = [bench.finished(task_id) for task_id in queued]
            climbing = bench.submit("echo", {"message": "x", "failTimes": 2})
            body = {"type": "echo", "payload": {"message": "x", "permanent": True}}
            dead = client.post("/v1/tasks", json=body).json["taskId"]
            climbed, died = bench.finished(climbing, 30), bench.finished(dead)
            bench.drained(names.WORK_QUEUE, names.RECORDER_QUEUE)
            again = client.post(f"/v1/dead-letters/{dead}/redrive").json
            eventually(lambda: (r := bench.store.get(dead)).cycle == 1 and r.state.terminal, 20, "it died again")
            log = worker.text()
        listed = [record.task_id for record in bench.stores.dead_letters.list().items]
        _, report = _dlq(bench, "list", "--unauthentic", "--json")
        code, text = _dlq(bench, "redrive", "--type", "echo", "--yes")
        (sent,) = bench.dead_letters(names.WORK_QUEUE)
        _, gone = _dlq(bench, "discard", queued[0], "--yes")
        _, rest = _dlq(bench, "discard", "--error-type", "unauthentic", "--yes")
        kept = bench.store.get(queued[0])
        left = [each.task_id for each in bench.dead_letters()]

    assert [record.state for record in before] == [State.QUEUED] * 3
    assert [(record.state, record.result["message"], record.cycle) for record in ended] == [
        (State.SUCCEEDED, "x", 0)
    ] * 3
    assert (climbed.state, climbed.attempt, died.state, again["cycle"]) == (State.SUCCEEDED, 3, State.DEAD_LETTERED, 1)
    assert listed == [dead]
    assert (sent.task_id, sent.cycle, keyed.signing.fault(sent)) == (dead, 2, "")
    assert len(report.splitlines()) == 3 * len(FORGERIES)
    assert "its signature is wrong" in log
    assert code == 1
    assert text.count("kept: unauthentic") == 3 * len(FORGERIES), text
    assert "10 discarded" in gone
    assert f"{3 * len(FORGERIES) - 10} discarded" in rest
    assert kept == ended[0]
    assert left == []
