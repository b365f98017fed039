"""Flower itself, with our configuration, before a real broker."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import topology
from dispatch.broker import provision
from support.ports import free_port
from support.waiting import eventually

ROOT = Path(topology.__file__).parent

TINY_APP = "import os, celery; app = celery.Celery('tiny', broker=os.environ['DISPATCH_BROKER_URL'])"


@pytest.fixture
def applied(settings):
    provision.apply(topology.broker_map(settings), settings)
    return settings


@contextlib.contextmanager
def flower(settings, directory, **environ):
    """Flower's base URL and its log; it is stopped at the end."""
    (directory / "tinyapp.py").write_text(TINY_APP)
    port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": f"{directory}:{ROOT}",
        "DISPATCH_BROKER_URL": settings.broker("monitor"),
        "DISPATCH_MANAGEMENT_URL": settings.management_url.get_secret_value(),
        "DISPATCH_LADDER": str(settings.ladder),
        **environ,
    }
    command = [sys.executable, "-m", "celery", "-A", "tinyapp", "flower", f"--conf={ROOT / 'flowerconfig.py'}"]
    log = directory / "flower.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--port={port}"], cwd=directory, env=environ, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: answers(url), 20, log.read_text)
        yield url, log
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def answers(url):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/healthcheck", trust_env=False).is_success
    return False


def test_flower_shows_every_queue_and_changes_nothing(applied, tmp_path):
    names = sorted(queue.name for queue in topology.broker_map(applied).queues)

    with flower(applied, tmp_path) as (url, log), httpx.Client(base_url=url, trust_env=False) as client:
        page = client.get("/broker")
        lengths = client.get("/api/queues/length")
        shutdown = client.post("/api/worker/shutdown/any")
        tasks = client.get("/tasks")
        said = log.read_text()

    assert sorted(re.findall(r"<td>(robot\.[^<]+)</td>", page.text)) == names
    assert sorted(queue["name"] for queue in lengths.json()["active_queues"]) == names
    assert "Access-Control-Allow-Origin" not in lengths.headers
    assert shutdown.status_code == 403
    assert "Exception" in tasks.text
    assert "guest:guest" not in said + page.text


def test_flower_with_a_password_answers_nobody_without_it(applied, tmp_path):
    with (
        flower(applied, tmp_path, DISPATCH_FLOWER_BASIC_AUTH="operator:s3cret") as (url, log),
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        codes = [client.get(path).status_code for path in ("/broker", "/api/queues/length")]
        inside = client.get("/api/queues/length", auth=("operator", "s3cret"))
        said = log.read_text()

    assert codes == [401, 401]
    assert len(inside.json()["active_queues"]) == 7
    assert "s3cret" not in said
