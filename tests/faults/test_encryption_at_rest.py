"""P4 with encrypted payloads and results: nothing is in clear where it lies, and nothing is lost with a change of keys."""

import base64
import contextlib
import json
import types

import pytest
import redis
from celery import chain
from click.testing import CliRunner
from kombu import Connection
from pydantic import SecretStr

from dispatch.cli.dlq import dlq
from dispatch.protocol import names
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.record import State
from dispatch.protocol.sealing import SEALED_TYPE
from dispatch.store.idempotency import KeyReused
from support.gateway_live import gateway
from support.waiting import eventually
from support.worker import open_bench, running_worker

OLD, NEW, FOREIGN = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n", b"x"))

#: What must be nowhere in clear: a payload's and a result's text, an error's and a progress message's.
SECRET = "Ada-Lovelace-7f3a"
TEXTS = (SECRET, "configured to fail", "slept ")


def _keyed(settings, *keys):
    return settings.model_copy(
        update={"encryption_keys": SecretStr(",".join(keys)), "message_keys": SecretStr(f"a:{'s' * 40}")}
    )


@pytest.fixture(scope="module")
def system(module_settings):
    """A gateway and a bench in the middle of a rotation; the worker is the tests' own."""
    keyed = _keyed(module_settings, NEW, OLD)
    with open_bench(keyed) as bench, gateway(keyed) as client:
        yield bench, client


def _stored(settings):
    """Every key below the prefix with all that it holds, as text."""
    reads = {
        "string": lambda store, key: store.get(key),
        "hash": lambda store, key: store.hgetall(key),
        "list": lambda store, key: store.lrange(key, 0, -1),
        "zset": lambda store, key: store.zrange(key, 0, -1),
        "stream": lambda store, key: store.xrange(key),
        "set": lambda store, key: store.smembers(key),
    }
    with contextlib.closing(redis.Redis.from_url(settings.redis_url.get_secret_value())) as store:
        keys = list(store.scan_iter(f"{settings.redis_prefix}*", count=1_000))
        return "\n".join(f"{key} {reads[store.type(key).decode()](store, key)}" for key in keys)


def _queued(bench, *queues):
    """What lies in these queues, bodies and headers, as text."""
    found = [message for queue in queues for message in bench.dead_letters(queue)]
    assert found, queues
    return "\n".join(f"{message.body!r} {message.headers}" for message in found)


def _clear(text):
    """Which of the texts can be read, as they are or through base64."""
    forms = {each: [each, *(_base64(each, shift) for shift in range(3))] for each in TEXTS}
    return [each for each, written in forms.items() if any(form in text for form in written)]


def _base64(text, shift):
    return base64.b64encode(b"x" * shift + text.encode())[4 if shift else 0 : -4].decode()


def _post(client, **payload):
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": {"message": SECRET, **payload}})
    assert answer.status_code == 202, answer.text
    return answer.json["taskId"]


def _dlq(bench, *words):
    done = CliRunner().invoke(dlq, words, obj=types.SimpleNamespace(app=bench.celery))
    return done.output


def _events(connection, queue):
    """What came since the last look: events of tasks in batches, others one by one."""
    while (message := connection.default_channel.basic_get(queue, no_ack=True)) is not None:
        found = json.loads(message.body)
        yield from (json.dumps(one, ensure_ascii=False) for one in (found if isinstance(found, list) else [found]))


def test_nothing_is_in_clear_at_rest_and_everything_is_for_those_who_may_read_it(system):
    bench, client = system
    done, climbing, dead = _post(client, sleepSeconds=1), _post(client, failTimes=2), _post(client, permanent=True)
    twin = _post(client, permanent=True)
    with open_bench(_keyed(bench.settings, OLD)) as before, open_bench(_keyed(bench.settings)) as unkeyed:
        old = before.submit("echo", {"message": SECRET}, key="k")
        again = bench.submit("echo", {"message": SECRET}, key="k")
        with pytest.raises(KeyReused):
            bench.submit("echo", {"message": "another"}, key="k")
        queued = _clear(_queued(bench, names.WORK_QUEUE)) + _clear(_stored(bench.settings))
        plain = unkeyed.submit("echo", {"message": "from before there were keys"})
    links = [bench.celery.signature("echo", [{"message": SECRET}], app=bench.celery, immutable=True) for _ in range(2)]
    links[1].set(task_id=new_task_id())

    with (
        running_worker(bench.settings, abrupt=True) as worker,
        Connection(bench.settings.broker("admin")) as connection,
    ):
        events = connection.default_channel.queue_declare(exclusive=True).queue
        connection.default_channel.queue_bind(events, "celeryev", "#")
        chain(*links, app=bench.celery).apply_async(task_id=new_task_id())
        waited = bench.wait_for(climbing, State.RETRY_WAIT)
        waiting = _clear(_queued(bench, "robot.retry.q.1m")) if bench.state(climbing) is State.RETRY_WAIT else []
        ended = {each: bench.finished(each, 30) for each in (done, climbing, old, plain, dead, twin, links[1].id)}
        bench.drained(names.RECORDER_QUEUE)
        stored, letters = _clear(_stored(bench.settings)), _clear(_queued(bench, names.DEAD_QUEUE))
        read = client.get(f"/v1/tasks/{done}").json
        hops = client.get(f"/v1/tasks/{done}/events").json
        letter, shown = client.get(f"/v1/dead-letters/{dead}").json, json.loads(_dlq(bench, "show", dead))
        grouped = client.get("/v1/dead-letters/groups?type=echo").json
        alike = client.get(f"/v1/dead-letters?fingerprint={grouped['items'][0]['fingerprint']}").json["items"]
        redriven = client.post(f"/v1/dead-letters/{dead}/redrive").json
        eventually(lambda: (r := bench.store.get(dead)).cycle == 1 and r.state.terminal, 20, "it died again")
        bench.drained(names.RECORDER_QUEUE)
        again_alike = client.get("/v1/dead-letters/groups?type=echo").json["items"]
        sent = _dlq(bench, "redrive", "--type", "echo", "--fingerprint", again_alike[0]["fingerprint"], "--yes")
        eventually(lambda: (r := bench.store.get(dead)).cycle == 2 and r.state.terminal, 20, "and again")
        told = []
        eventually(
            lambda: told.extend(_events(connection, events)) or sum("task-" in one for one in told) > 10, 10, "events"
        )
        log = worker.text()

    assert (again, queued, waiting, stored, letters, _clear("\n".join(told))) == (old, [], [], [], [], [])
    assert waited.error.message.startswith("configured to fail")
    assert {each: record.state for each, record in ended.items()} == {
        **dict.fromkeys(ended, State.SUCCEEDED),
        **dict.fromkeys((dead, twin), State.DEAD_LETTERED),
    }
    assert [ended[each].result["message"] for each in (done, climbing, old)] == [SECRET] * 3
    assert (read["result"]["message"], read["progress"]["message"][:6]) == (SECRET, "slept ")
    assert {hop["message"][:6] for hop in hops if hop["kind"] == "progress"} == {"slept "}
    assert letter["payload"] == {"message": SECRET, "permanent": True}
    assert SECRET in shown["message"]["body"]
    assert shown["message"]["headers"].get("x-last-error", "configured to fail permanently").startswith("configured")
    assert [(group["count"], group["exampleError"]) for group in grouped["items"]] == [(2, shown["error"]["detail"])]
    assert ({one["taskId"] for one in alike}, len(again_alike), again_alike[0]["count"]) == ({dead, twin}, 1, 2)
    assert (redriven["cycle"], f"{dead}  sent, cycle 2" in sent, f"{twin}  sent, cycle 1" in sent) == (1, True, True), (
        sent
    )
    assert "undecryptable" not in log


def test_a_message_without_its_key_waits_in_the_dlq_until_the_key_is_back(system):
    bench, client = system
    with open_bench(_keyed(bench.settings, FOREIGN)) as stranger:
        lost = stranger.submit("echo", {"message": SECRET})
    with running_worker(bench.settings, abrupt=True):
        died = bench.finished(lost)
        bench.drained(names.RECORDER_QUEUE)
    letter = client.get(f"/v1/dead-letters/{lost}").json
    # A worker that is killed over its janitor's walk keeps the DLQ from others until the walk's lock lapses.
    shown = eventually(lambda: json.loads(_dlq(bench, "show", lost)), 20, "the DLQ can be walked through")
    (held,) = [each for each in bench.dead_letters() if each.task_id == lost]
    sent = _dlq(bench, "redrive", "--error-type", "undecryptable", "--yes")
    with running_worker(_keyed(bench.settings, "plain", NEW, OLD, FOREIGN), abrupt=True):
        ended = bench.finished(lost)

    assert (died.state, died.dead_reason, died.attempt) == (State.DEAD_LETTERED, Reason.UNDECRYPTABLE, 0)
    assert (died.error.retryable, "not in DISPATCH_ENCRYPTION_KEYS" in died.error.message) == (True, True)
    assert (letter["payload"], "not in DISPATCH_ENCRYPTION_KEYS" in shown["message"]["body"]) == (None, True)
    assert (held.content_type, held.text("x-dead-reason")) == (SEALED_TYPE, "undecryptable")
    assert f"{lost}  sent, cycle 1" in sent, sent
    assert (ended.state, ended.result, ended.cycle) == (State.SUCCEEDED, {"message": SECRET, "attempt": 1}, 1)
    assert _clear(_stored(bench.settings)) == [SECRET]  # "plain": the result of this one task
