"""P2, P7: RabbitMQ is out of memory. On a RabbitMQ of its own: an alarm stops every publisher of a broker."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from dispatch.errors import InDoubt, NotSent
from dispatch.protocol.record import State
from launcher import envfile, procfs, rabbitmq
from support import servers as shared
from support.waiting import eventually
from support.worker import open_bench, running_worker

PAYLOAD = {"message": "x"}


@pytest.fixture
def own_broker():
    """A private RabbitMQ: its servers, and a function that sets its memory watermark."""
    directory = Path(tempfile.mkdtemp(prefix="robot-dispatch-alarm-"))
    directory.chmod(0o711)  # the servers' own users pass through it
    run = directory / "run"
    started = shared.start(run, owner=os.getpid())
    try:
        yield started, lambda fraction: _watermark(run, fraction)
    finally:
        shared.throw_away(run)
        shutil.rmtree(directory, ignore_errors=True)


def _watermark(run, fraction):
    """RabbitMQ's own tool, in the server's own environment: no other way leads there."""
    pid = int(envfile.read(run / "env")["RABBITMQ_PID"])
    assert pid in procfs.owned(run)
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    tool = rabbitmq.home(os.environ) / "sbin" / "rabbitmqctl"
    command = [str(tool), "-n", environ["RABBITMQ_NODENAME"], "set_vm_memory_high_watermark", fraction]
    subprocess.run(command, env=environ, capture_output=True, timeout=60, check=True)


def _submit(bench):
    """What a submission ends in, and how long it takes."""
    began = time.monotonic()
    try:
        outcome = bench.submit("echo", PAYLOAD)
    except (InDoubt, NotSent) as exc:
        outcome = exc
    return outcome, time.monotonic() - began


def test_an_alarm_is_answered_in_time_and_workers_go_on_when_it_is_over(settings, own_broker):
    servers, watermark = own_broker
    vhost = rabbitmq.VHOST
    own = settings.model_copy(
        update={
            "broker_url": SecretStr(servers.broker_url(vhost)),
            "management_url": SecretStr(servers.management_url),
            "unpublished_grace": 60.0,  # the alarm is no reason to give the one in doubt up
        }
    )
    with open_bench(own) as bench, running_worker(own, abrupt=True) as worker:
        before = bench.submit("echo", {"message": "x", "sleepSeconds": 3})
        failing = bench.submit("echo", {"message": "x", "sleepSeconds": 1, "failTimes": 1})
        bench.wait_for(failing, State.RUNNING)
        watermark("0.000001")
        answers = [_submit(bench) for _ in range(4)]
        quiet = bench.wait_for(before, State.SUCCEEDED)  # acks and Redis need no publishing
        named = eventually(lambda: bench.publisher.trouble, 10, "the publisher has the reason")
        watermark("0.6")
        accepted = eventually(lambda: isinstance(outcome := _submit(bench)[0], str) and outcome, 30, "it is over")
        doubted = answers[0][0].task_id
        records = [bench.finished(task_id, 30) for task_id in (failing, accepted, doubted)]
        bench.drained()

        assert worker.process.poll() is None
    assert named.public == "RabbitMQ: it has a resource alarm (memory or disk) and takes no messages"
    kinds = [type(outcome) for outcome, _ in answers]

    assert max(seconds for _, seconds in answers) < 5
    assert kinds == [InDoubt, NotSent, NotSent, NotSent]
    assert max(seconds for _, seconds in answers[1:]) < 1.5
    assert {record.state for record in [quiet, *records]} == {State.SUCCEEDED}
    assert [record.attempt for record in records] == [2, 1, 1]
