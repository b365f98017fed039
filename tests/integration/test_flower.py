"""Flower itself, with our configuration, before a real broker."""

import contextlib
import os
import re
import shelve
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.protocol.copies import delayed_copy
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.lanes import parse_lanes
from dispatch.protocol.message import Message
from support.ports import free_port
from support.waiting import eventually
from support.worker import open_bench, running_worker

ROOT = Path(topology.__file__).parent

TINY_APP = "import os, celery; app = celery.Celery('tiny', broker=os.environ['DISPATCH_BROKER_URL'])"


@pytest.fixture
def applied(settings):
    provision.apply(topology.broker_map(settings), settings)
    return settings


@contextlib.contextmanager
def flower(settings, directory, *options, **environ):
    """Flower's base URL and its log; it gets SIGTERM at the end, and SIGKILL when that does not end it."""
    (directory / "tinyapp.py").write_text(TINY_APP)
    port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": f"{directory}:{ROOT}",
        "DISPATCH_BROKER_URL": settings.broker("control"),
        "DISPATCH_MANAGEMENT_URL": settings.management_url.get_secret_value(),
        "DISPATCH_LADDER": str(settings.ladder),
        **environ,
    }
    command = [sys.executable, "-m", "celery", "-A", "tinyapp", "flower", f"--conf={ROOT / 'flowerconfig.py'}"]
    log = directory / "flower.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--port={port}", *options], cwd=directory, env=environ, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(url), 20, log.read_text)
        yield url, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthcheck", trust_env=False).is_success
    return False


def test_flower_shows_every_queue_in_the_maps_order_changes_nothing_and_keeps_what_it_saw(applied, tmp_path):
    names = [queue.name for queue in topology.broker_map(applied).queues if ".delay." not in queue.name]
    kept = tmp_path / "seen"
    torn = kept.with_suffix(".dat")  # of a process that was killed while it wrote
    torn.write_bytes(b"torn")
    kept.with_suffix(".dir").write_text("'events', (0, 10_000)\n")
    options = ("--persistent=true", f"--db={kept}")

    with flower(applied, tmp_path, *options) as (url, log), httpx.Client(base_url=url, trust_env=False) as client:
        page = client.get("/broker")
        lengths = client.get("/api/queues/length")
        shutdown = client.post("/api/worker/shutdown/any")
        tasks = client.get("/tasks")
        output = log.read_text()

    assert re.findall(r"<td>(robot\.[^<]+)</td>", page.text) == names
    assert [queue["name"] for queue in lengths.json()["active_queues"]] == names
    assert "Access-Control-Allow-Origin" not in lengths.headers
    assert shutdown.status_code == 403
    assert re.findall(r'data-column="(\w+)"', tasks.text)[-1] == "exception"  # it gets what the others leave
    assert "max-width: 0; overflow: hidden" in tasks.text
    with shelve.open(str(kept), flag="r") as seen:
        assert set(seen) == {"events", "counter"}
    assert "guest:guest" not in output + page.text


def test_flower_shows_the_queue_of_every_lane_and_inspect_has_them_as_consumed(settings, tmp_path):
    lanes = parse_lanes("bulk=echo;robots=robot.*")
    laned = settings.model_copy(update={"lanes": lanes})
    provision.apply(topology.broker_map(laned), laned)
    with (
        flower(laned, tmp_path, DISPATCH_LANES=str(lanes)) as (url, _),
        httpx.Client(base_url=url, trust_env=False) as client,
        open_bench(laned) as bench,
        running_worker(laned, abrupt=True),
    ):
        page = client.get("/broker").text
        consumed = eventually(
            lambda: bench.celery.control.inspect(timeout=5.0).active_queues(), 30, "the worker answers"
        )

    work = ["robot.task.q", "robot.task.q.bulk", "robot.task.q.robots"]
    assert [name for name in re.findall(r"<td>(robot\.[^<]+)</td>", page) if name.startswith("robot.task.q")] == work
    assert [sorted(queue["name"] for queue in queues) for queues in consumed.values()] == [work]


def test_flower_shows_a_delay_level_once_something_waits_in_it(settings, tmp_path):
    deeper = settings.model_copy(update={"delay_levels": 12})
    provision.apply(topology.broker_map(deeper), deeper)
    message = Message(b"[]", {"id": new_task_id(), "task": "echo"})
    copy = delayed_copy(message, 2_048)
    with contextlib.closing(Publisher(settings.address("gateway"), connect_timeout=5.0, timeout=10.0)) as publisher:
        publisher.publish(copy.message, copy.exchange, copy.routing_key)

    with (
        flower(deeper, tmp_path, DISPATCH_DELAY_LEVELS="12") as (url, _),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        levels = eventually(lambda: re.findall(r"<td>(robot\.delay\.[^<]+)</td>", client.get("/broker").text), 60)

    assert levels == [copy.queue]


def test_flower_with_a_password_refuses_requests_without_it(applied, tmp_path):
    with (
        flower(applied, tmp_path, DISPATCH_FLOWER_BASIC_AUTH="operator:s3cret") as (url, log),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        codes = [client.get(path).status_code for path in ("/broker", "/api/queues/length")]
        inside = client.get("/api/queues/length", auth=("operator", "s3cret"))
        output = log.read_text()

    assert codes == [401, 401]
    assert len(inside.json()["active_queues"]) == 8
    assert "s3cret" not in output
