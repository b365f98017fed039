"""The benchmarks' harness with real processes and a real HTTP server."""

import asyncio
import contextlib
import http.server
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from bench.harness import load, procfs, programs
from bench.harness.errors import BenchmarkFailed
from support.waiting import eventually

PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time\\nfor _ in range(2_000_000): pass\\nprint('burnt', flush=True)\\ntime.sleep(600)"]).wait()
"""


@pytest.fixture
def running(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(code):
            command = [sys.executable, "-c", code]
            return stack.enter_context(programs.running("a program", command, os.environ, tmp_path, tmp_path / "logs"))

        yield start


def test_cpu_and_memory_of_a_program_include_what_it_started(running):
    program = running(PARENT)
    program.require(lambda: "burnt" in program.last_output(), "work of the child")

    (_, child) = procfs.tree(program.pid)
    assert procfs.cpu(program.pid) > procfs.cpu(child) > 0.01
    assert procfs.pss(program.pid) > procfs.pss(child) > 1_000_000


def test_a_program_is_ended_with_what_it_started(running):
    program = running(PARENT)
    program.require(lambda: "burnt" in program.last_output(), "work of the child")
    (_, child) = procfs.tree(program.pid)

    program.end()

    eventually(lambda: not _runs(child), message="the child has ended")


def _runs(pid):
    """A process that ended stays as a zombie where process 1 collects none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_program_wrote_is_the_reason_when_it_ends_early(running):
    program = running("raise SystemExit('no such broker')")

    with pytest.raises(BenchmarkFailed, match=r"(?s)a ready program: the program ended.*no such broker"):
        program.require(lambda: False, "a ready program")


class _StubGateway(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    refused = 0  #: submissions that are answered 429 before the first 202

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).refused:
            type(self).refused -= 1
            self._answer(429, {})
        else:
            self._answer(202, {"taskId": "t-1", "status": "PENDING", "statusUrl": "/v1/tasks/t-1"})

    def do_GET(self):
        assert self.path == "/v1/tasks/t-1"
        self._answer(200, {"taskId": "t-1", "status": "SUCCESS", "startedAt": "2100-01-01T00:00:00.000Z"})

    def _answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-LENGTH", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    _StubGateway.refused = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _StubGateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_load_at_a_rate_counts_every_answer(gateway):
    _StubGateway.refused = 3

    outcome = asyncio.run(load.open_loop(gateway, rate=200, seconds=0.1))

    assert outcome["statuses"] == {"POST 429": 3, "POST 202": 17, "GET 200": 17}
    assert outcome["succeeded"] == 1
    assert 0 < outcome["p50 ms"] <= outcome["p99 ms"] <= outcome["p100 ms"]


def test_a_share_of_the_tasks_is_read(gateway):
    outcome = asyncio.run(load.open_loop(gateway, rate=200, seconds=0.1, reads=0.25))

    assert outcome["statuses"] == {"POST 202": 20, "GET 200": 5}


def test_filling_gives_the_ids_and_stops_at_a_refusal(gateway):
    assert asyncio.run(load.fill(gateway, 7, 3, {})) == {"ids": ["t-1"] * 7}

    _StubGateway.refused = 1
    with pytest.raises(BenchmarkFailed, match="429"):
        asyncio.run(load.fill(gateway, 7, 3, {}))


def test_a_task_is_followed_to_its_end(gateway):
    outcome = asyncio.run(load.follow(gateway, rate=100, count=5))

    assert [len(outcome[name]) for name in ("answered", "started", "succeeded")] == [5, 5, 5]
    assert min(outcome["started"]) > max(outcome["succeeded"])
