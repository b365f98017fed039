"""The robot simulator as a program."""

import re
import signal
import subprocess
import sys
import time

import httpx
import pytest


@pytest.fixture
def program():
    command = [sys.executable, "-W", "error", "-m", "examples.robot_simulator", "--port", "0", "--work-seconds", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_it_serves_and_stops_at_once_on_sigterm(program):
    url = re.search(r"http://\S+", program.stdout.readline())[0]
    with httpx.Client(base_url=url) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        client.post("/control/faults", json={"match": "token", "latencySeconds": 30})
        with pytest.raises(httpx.ReadTimeout):  # a request hangs in it
            client.post("/oauth/token", timeout=0.2)

        began = time.monotonic()
        program.send_signal(signal.SIGTERM)
        _, errors = program.communicate(timeout=10)

    assert time.monotonic() - began < 10  # the request hangs for 30
    assert (program.returncode, errors) == (0, "")
