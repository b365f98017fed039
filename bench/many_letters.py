"""The cost of many dead letters in the DLQ: time and memory of listing, recording, redriving and walking.

``python -m bench letters --count 100000`` (`bench.parts.letters`), in whose process the settings are those of the servers. The last ten dead letters have another type than all others, so that a redrive by type walks past these.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from kombu import Connection

import topology
from app import create_app
from dispatch.broker import provision
from dispatch.broker.publisher import Publisher
from dispatch.config import settings as configuration
from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.protocol.copies import dead_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import ACCEPTED_AT, CYCLE, SEQ, Message
from dispatch.store.dead_letters import ALL_RECORDED, DeadLetterRecords
from dispatch.store.keys import RedisKeys
from dispatch.store.scripts import RedisHandle

CHUNK, FEW = 1_000, 10


def measure(many: int) -> None:
    """Publish dead letters, then measure each operation on them, and print a line for each.

    Args:
        many: how many.
    """
    settings = configuration.load(queue_depth_limit=10 * many)
    with Connection(settings.broker("admin")) as connection:
        provision.declare(connection, topology.broker_map(settings), settings)
    ids = [new_task_id() for _ in range(many)]
    _report("published", _timed(lambda: _post(settings, ids)), f"{many} dead letters")
    with _worker() as worker:
        _report(
            "recorded by the recorder", _timed(lambda: _until(lambda: _recorded(settings) >= many)), _memory(worker)
        )
        _measure_gateway(settings, ids[many // 2], many)
        records = DeadLetterRecords(RedisHandle(settings, timeout=2.0), settings)
        _report(
            "its dead letter left the DLQ",
            _timed(lambda: _until(lambda: not records.flagged())),
            _memory(worker),
        )
        _run("list", "--limit", "50")
        _run("list", "--limit", str(many), "--json")
        _run("show", ids[0])
        _run("redrive", ids[many // 3])
        _run("redrive", "--type", "drill", "--limit", str(FEW // 2), "--yes")
        client = redis.Redis.from_url(settings.redis_url.get_secret_value())
        client.flushdb()
        again = _timed(lambda: _until(lambda: records.recorded_marker() == ALL_RECORDED))
        _report("recorded again after a flush", again, f"{_recorded(settings)} dead letters; {_memory(worker)}")


def _measure_gateway(settings: Settings, task_id: str, many: int) -> None:
    app = create_app(settings)
    client = app.test_client()
    _until(lambda: client.get("/readyz").status_code == 200)
    _report("GET /v1/dead-letters, first page of 200", _timed(lambda: client.get("/v1/dead-letters?limit=200")))

    def pages() -> None:
        cursor, seen = "", 0
        while cursor is not None:
            page = client.get(f"/v1/dead-letters?limit=200{cursor and f'&cursor={cursor}'}").json or {}
            seen += len(page["items"])
            cursor = page["next"]
        _report("  seen", 0.0, f"{seen} of {many}")

    _report("GET /v1/dead-letters, every page", _timed(pages))
    _report("POST redrive of one", _timed(lambda: client.post(f"/v1/dead-letters/{task_id}/redrive")))
    app.extensions["close"]()


def _post(settings: Settings, ids: list[str]) -> None:
    publisher = Publisher(settings.broker("replay"), timeout=30)
    _until(publisher.ready)
    link = publisher._connection  # noqa: SLF001 - publishes without waiting for each confirm
    assert link is not None  # noqa: S101 - it is ready
    for start in range(0, len(ids), CHUNK):
        until = time.monotonic() + 120
        chunk = ids[start : start + CHUNK]
        letters = [_letter(task_id, "drill" if task_id in ids[-FEW:] else "echo") for task_id in chunk]
        for future in [link.publish(letter, names.DEAD_EXCHANGE, letter.routing_key, until) for letter in letters]:
            future.result(120)
    publisher.close()


def _letter(task_id: str, kind: str) -> Message:
    headers = {"id": task_id, "task": kind, "retries": 1, CYCLE: 0, SEQ: 1, ACCEPTED_AT: int(time.time() * 1_000)}
    body = json.dumps([[{"message": "x" * 300}], {}, {}]).encode()
    message = Message(body, headers, routing_key=names.routing_key(kind))
    return dead_copy(message, Reason.PERMANENT, "configured to fail permanently", error_type="echo-refused").message


def _recorded(settings: Settings) -> int:
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    with contextlib.closing(client):
        return int(client.zcard(RedisKeys(settings.redis_prefix).dead))


@contextlib.contextmanager
def _worker() -> Iterator[int]:
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--autoscale=8,2", "-n", "bench@bench"]
    with tempfile.TemporaryFile() as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, "REMAP_SIGTERM": "SIGQUIT"})
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _memory(pid: int) -> str:
    """Peak memory of a process (VmHWM)."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return f"peak of the worker's main process: {int(match[1]) // 1_024 if match else 0} MiB"


def _run(*arguments: str) -> None:
    """Run a `dlq` command and report its time and memory."""
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "dlq", *arguments]
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        peak = _peak(process)
        seconds = time.monotonic() - started
        output.seek(0)
        lines = output.read().splitlines()
    summary = f"exit {process.returncode}, {len(lines)} lines, {peak} MiB; {lines[-1][:60]}"
    _report(f"dlq {' '.join(arguments)}", seconds, summary)


def _peak(process: subprocess.Popen[bytes]) -> int:
    """Peak memory of a process at its end, in MiB; the value of `wait4` would include the parent's."""
    peak = 0
    while process.poll() is None:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = int(match[1]) // 1_024 if match else peak
        time.sleep(0.02)
    return peak


def _timed(function: Callable[[], Any]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def _report(measurement: str, seconds: float, details: str = "") -> None:
    sys.stdout.write(f"{measurement:60} {seconds:8.2f} s  {details}\n")
    sys.stdout.flush()
