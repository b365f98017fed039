"""P4: whatever is broadcast to the control queue, workers go on working and nothing leaves the DLQ."""

import json
import subprocess
import sys
import time

import amqp
import pytest
from celery.app.control import Control
from celery.worker.control import Panel
from kombu import Connection
from pydantic import SecretStr

from dispatch.protocol import names
from dispatch.protocol.record import State
from dispatch.worker.remote_control import READ_ONLY
from support.waiting import eventually
from support.worker import ROOT, environment, running_worker

#: The commands that change something, with what does the most harm.
HARM = {
    "autoscale": {"max": 0, "min": 0},
    "add_consumer": {"queue": names.DEAD_QUEUE},
    "cancel_consumer": {"queue": names.WORK_QUEUE},
    "rate_limit": {"task_name": "echo", "rate_limit": "1/h"},
    "time_limit": {"task_name": "echo", "hard": 0.01},
    "pool_shrink": {"n": 8},
    "pool_grow": {"n": 1},
    "pool_restart": {},
    "disable_events": {},
    "revoke": {"task_id": ["TASK"], "terminate": True, "signal": "KILL"},
    "terminate": {"task_id": ["TASK"], "signal": "KILL"},
    "revoke_by_stamped_headers": {"headers": {"a": ["b"]}, "terminate": True},
    "election": {"id": "e", "topic": "t"},
    "hello": {"from_node": "nobody@h", "revoked": ["TASK"]},
    "objgraph": {},
    "memsample": {},
    "memdump": {},
    "shutdown": {},
}


def _broadcast(bench, command, arguments, timeout=5):
    return _send(bench, command, arguments, reply=True, timeout=timeout, limit=1)


def _send(bench, command, arguments, **options):
    """As Celery's own client does; ours refuses some before they are sent."""
    return Control.broadcast(bench.celery.control, command, arguments=arguments, **options)


def _celery(bench, *words):
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "celery_app", *words],
        cwd=ROOT, env=environment(bench.settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_command_that_changes_something_is_refused_and_changes_nothing(bench):
    assert HARM.keys() | READ_ONLY == Panel.meta.keys()

    with running_worker(bench.settings, abrupt=True) as worker:
        dead = bench.submit("echo", {"message": "x", "permanent": True})
        bench.finished(dead)
        task_id = bench.submit("echo", {"message": "x", "sleepSeconds": 3})
        bench.wait_for(task_id, State.RUNNING)
        children = worker.children()
        answers = {}
        for command, arguments in HARM.items():
            meant = json.loads(json.dumps(arguments).replace("TASK", task_id))
            (answers[command],) = _broadcast(bench, command, meant)
            _send(bench, command, meant)  # and without a reply
        record = bench.finished(task_id)
        later = bench.finished(bench.submit("echo", {"message": "x"}))
        dead_letters = bench.depth(names.DEAD_QUEUE)
        kept = set(children) <= set(worker.children())
        log = worker.text()
        refused, text = _celery(bench, "control", "autoscale", "4", "2")
        asked, _ = _celery(bench, "inspect", "ping")

    for command, answer in answers.items():
        ((reply,),) = [answer.values()]
        assert "DISPATCH_CONTROL_COMMANDS" in reply["error"], command
        assert reply["error"].startswith(f"{command} is refused")
        assert log.count(f'"command": "{command}"') == 2, log[-3_000:]  # one a sender
    assert [record.state, later.state] == [State.SUCCEEDED] * 2
    assert record.attempt == 1
    assert bench.hops(task_id).count("started") == 1
    assert dead_letters == 1
    assert kept
    assert (refused, "autoscale is refused" in text, asked) == (1, True, 0), text


def test_commands_that_read_are_answered_without_passwords_and_payloads(bench):
    url = bench.settings.broker("worker")
    several = bench.settings.model_copy(update={"broker_url": SecretStr(f"{url};{url}")})
    with running_worker(several, "-E", abrupt=True):
        task_id = bench.submit("echo", {"message": "only-for-the-handler", "sleepSeconds": 4})
        bench.wait_for(task_id, State.RUNNING)
        asked = {
            "query_task": {"ids": [task_id]},
            "conf": {"with_defaults": True},
            "registered": {"taskinfoitems": ["app", "backend"]},
        }
        answers = {command: _broadcast(bench, command, asked.get(command, {})) for command in sorted(READ_ONLY)}
        active = bench.celery.control.inspect(timeout=2, limit=1).active()

    text = json.dumps([answers, active])
    silent = [command for command, answer in answers.items() if command != "heartbeat" and not answer]
    assert silent == []
    assert "is refused" not in text
    assert task_id in json.dumps(answers["active"])
    assert task_id in json.dumps(active)
    assert ":guest@" not in text
    assert "only-for-the-handler" not in text


#: What a client may send to the control queue beside a command.
JUNK = {
    "a reply into the DLQ": {"method": "ping", "reply_to": {"exchange": names.DEAD_EXCHANGE, "routing_key": "x"}, "ticket": "t"},
    "a reply onto a rung": {"method": "ping", "reply_to": {"exchange": names.RETRY_EXCHANGE, "routing_key": "x"}},
    "a reply to nowhere": {"method": "ping", "reply_to": {"exchange": "reply.celery.pidbox"}},
    "a regular expression that takes years": {"method": "ping", "pattern": "(([a-z0-9@-])+)+$$!", "matcher": "pcre"},
    "no object": [1],
    "no method": {"arguments": {}},
    "a method that is a list": {"method": ["ping"]},
    "arguments that don't fit": {"method": "ping", "arguments": {"state": 1}},
    "a destination that is a number": {"method": "ping", "destination": 7},
    "a field of dispatch's own": {"method": "ping", "self": 1},
}  # fmt: skip


def test_what_is_no_command_harms_nothing(bench):
    with (
        running_worker(bench.settings, abrupt=True) as worker,
        Connection(bench.settings.broker("admin")) as connection,
    ):
        (name,) = eventually(lambda: bench.celery.control.ping(timeout=1), 15, "it answers")[0]
        channel = connection.default_channel
        for body in JUNK.values():
            for clock in (1, 2**63 - 1, "now"):
                raw = amqp.Message(
                    json.dumps(body),
                    content_type="application/json",
                    content_encoding="utf-8",
                    application_headers={"clock": clock},
                )
                channel.basic_publish(raw, "celery.pidbox", "")
        began = time.monotonic()
        pong = _broadcast(bench, "ping", {}, 10)
        seconds = time.monotonic() - began
        record = bench.finished(bench.submit("echo", {"message": "x"}))
        log = worker.text()

    assert pong == [{name: {"ok": "pong"}}]
    assert seconds < 5
    assert record.state is State.SUCCEEDED
    assert bench.depth(names.DEAD_QUEUE) == 0
    assert "control message ignored" in log


def test_the_setting_adds_commands(bench):
    added = bench.settings.model_copy(update={"control_commands": ("time_limit", "shutdown")})
    with running_worker(added) as worker:
        (changed,) = _broadcast(bench, "time_limit", {"task_name": "echo", "hard": 30})
        (refused,) = _broadcast(bench, "autoscale", {"max": 0, "min": 0})
        bench.celery.control.shutdown()
        eventually(lambda: worker.process.poll() is not None, 60, "it has shut down")

    assert "ok" in next(iter(changed.values()))
    assert "error" in next(iter(refused.values()))


@pytest.mark.parametrize("body", [b"{", b"\xff"], ids=["no JSON", "no text"])
def test_junk_on_the_control_queue_is_redriven_or_discarded_like_any_dead_letter(bench, body):
    with running_worker(bench.settings, abrupt=True), Connection(bench.settings.broker("admin")) as connection:
        raw = amqp.Message(body, content_type="application/json", content_encoding="utf-8")
        connection.default_channel.basic_publish(raw, "celery.pidbox", "a.sender.s.key")
        (dead_letter,) = eventually(bench.dead_letters, 10, "it is a dead letter")
        eventually(
            lambda: (found := bench.store.get(dead_letter.task_id)) and found.is_dead_letter, 10, "it is recorded"
        )
        bench.stores.service(bench.publisher).redrive(dead_letter.task_id, by="me")
        eventually(lambda: [each.cycle for each in bench.dead_letters()] == [1], 20, "it has died once more, as a task")

    assert dead_letter.routing_key == "a.sender.s.key"
