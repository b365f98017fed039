"""Many cleaning orders at once on one worker with eight children: time of all, orders given twice, memory, messages.

The whole system under its launcher, with the robot simulator as the vendor. With ``--faults`` worker, RabbitMQ and Redis are
killed (SIGKILL) while the robots work; the launcher starts them again.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime as dt
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from bench.harness import machine, procfs
from bench.harness.errors import BenchmarkFailed
from bench.harness.results import ResultRow
from bench.harness.servers import ROOT, BenchServers
from bench.harness.turns import progress
from bench.parts.base import OURS, Measured
from tools import private_stack

NAME = "orders"
HELP = "many cleaning orders at once on one worker: time of all, orders given twice, memory, messages"

#: What is started.
_PROCESSES = "servers,simulator,worker,gateway"

#: Killed with ``--faults``, in this order.
_VICTIMS = ("WORKER", "RABBITMQ", "REDIS")

_CHILDREN = 8

#: Submissions under way at a time.
_SUBMITTING = 16

#: Seconds between two looks at what goes on; of one request.
_LOOK, _ANSWER = 0.5, 30.0

#: Seconds beyond an order's work after which the run has failed.
_PATIENCE = 600.0

#: Limits that so many tasks at once would meet.
_LIMITS = {"quota_open_tasks": 10**6, "rate_limit": 10**6, "queue_depth_limit": 10**6}

_MEGABYTE = 1e6


@dataclasses.dataclass
class OrdersRun:
    """What is seen of one run."""

    began: float = dataclasses.field(default_factory=time.time)
    accepted: float = 0.0  #: seconds until the last 202
    memory: list[float] = dataclasses.field(default_factory=list)  #: of the worker, bytes (PSS), a look each
    published: float = 0.0  #: messages


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--orders", type=int, default=1_000, help="how many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="that a robot works (%(default)s)")
    parser.add_argument("--callbacks", action="store_true", help="the vendor calls back; otherwise it is polled only")
    parser.add_argument("--faults", action="store_true", help="kill worker, RabbitMQ and Redis while the robots work")


def measure(options: argparse.Namespace) -> Measured:
    """Submit, follow to the end, and compare with what the vendor has counted."""
    size = {"concurrency_min": _CHILDREN, "concurrency_max": _CHILDREN, **_LIMITS}
    with (
        tempfile.TemporaryDirectory(prefix="robot-dispatch-bench-") as logs,
        private_stack.running(ROOT, None, "up", "--only", _PROCESSES, **size) as stack,
    ):
        on = BenchServers(stack, Path(logs))
        with _clients(stack) as (gateway, vendor):
            vendor.post("/control/jobs", json=_job(options)).raise_for_status()
            seen = OrdersRun()
            ids = _submitted(gateway, options.orders)
            seen.accepted = time.time() - seen.began
            progress(f"{options.orders:,} accepted in {seen.accepted:.1f} s")
            _followed(stack, gateway, options, seen)
            # A broker that was killed counts from its restart on.
            seen.published = math.nan if options.faults else _published(on)
            figures, notes = _verdict(gateway, vendor, ids, seen)
        case = f"{options.orders:,} orders of {options.seconds:g} s" + (", with kills" if options.faults else "")
        return Measured(machine.described(on), [ResultRow(case, OURS, figures)], notes)


def _job(options: argparse.Namespace) -> dict[str, Any]:
    callback = "once" if options.callbacks else "never"
    return {"seconds": options.seconds, "times": None, "callback": callback}


@contextlib.contextmanager
def _clients(stack: private_stack.PrivateStack) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    urls = stack.addresses
    with (
        httpx.Client(base_url=urls["DISPATCH_HTTP_URL"], timeout=_ANSWER, trust_env=False) as gateway,
        httpx.Client(base_url=urls["ROBOT_API_URL"], timeout=_ANSWER, trust_env=False) as vendor,
    ):
        yield gateway, vendor


def _submitted(gateway: httpx.Client, count: int) -> list[str]:
    def submit(number: int) -> str:
        body = {"type": "robot.clean", "payload": {"robot": f"SN-{number}", "areas": ["lobby"]}}
        return str(gateway.post("/v1/tasks", json=body).raise_for_status().json()["taskId"])

    with concurrent.futures.ThreadPoolExecutor(_SUBMITTING) as pool:
        return list(pool.map(submit, range(1, count + 1)))


def _followed(
    stack: private_stack.PrivateStack, gateway: httpx.Client, options: argparse.Namespace, seen: OrdersRun
) -> None:
    """Look at the worker until every task has ended; kill in the middle of the robots' work where that is wanted."""
    until, kills = seen.began + options.seconds + _PATIENCE, seen.began + options.seconds / 2
    victims = list(_VICTIMS) if options.faults else []
    while (left := _unfinished(gateway)) != 0:
        if time.time() > until:
            raise BenchmarkFailed(f"{left} tasks have not ended {_PATIENCE:.0f} s after their robots")
        if victims and time.time() >= kills:
            _kill(stack, victims.pop(0))
        with contextlib.suppress(KeyError, OSError):
            seen.memory.append(procfs.pss(int(stack.addresses["WORKER_PID"])))
        time.sleep(_LOOK)


def _unfinished(gateway: httpx.Client) -> int | None:
    """Tasks that have not ended; None while that can't be read."""
    try:
        page = gateway.get("/v1/tasks", params={"status": "RUNNING", "limit": 1})
        waiting = gateway.get("/v1/tasks", params={"status": "PENDING", "limit": 1})
    except httpx.HTTPError:
        return None
    if page.status_code != httpx.codes.OK or waiting.status_code != httpx.codes.OK:
        return None
    return len(page.json()["items"]) + len(waiting.json()["items"])


def _kill(stack: private_stack.PrivateStack, name: str) -> None:
    """SIGKILL to a process and to all that it has started."""
    progress(f"killing {name}")
    for pid in list(procfs.tree(int(stack.addresses[f"{name}_PID"]))):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _published(on: BenchServers) -> float:
    """Messages that entered RabbitMQ since it started."""
    with on.management() as api:
        stats = api.get("/api/overview").raise_for_status().json().get("message_stats", {})
    return float(stats.get("publish", 0))


def _verdict(
    gateway: httpx.Client, vendor: httpx.Client, ids: list[str], seen: OrdersRun
) -> tuple[dict[str, list[float]], list[str]]:
    tasks = [gateway.get(f"/v1/tasks/{task_id}").raise_for_status().json() for task_id in ids]
    ended = collections.Counter(task["state"] for task in tasks)
    orders = vendor.get("/control/orders").raise_for_status().json()
    counts = vendor.get("/control/counts").raise_for_status().json()
    twice = [key for key, count in orders.items() if count["created"] != 1]
    took = max(_epoch(task["finishedAt"]) for task in tasks) - seen.began
    begin, middle, end = (seen.memory[at] / _MEGABYTE for at in (0, len(seen.memory) // 2, -1))
    figures = {
        "accepted s": seen.accepted,
        "all done s": took,
        "succeeded": ended["SUCCEEDED"],
        "orders at the vendor": sum(count["created"] for count in orders.values()),
        "keys with another number than 1": len(twice) + abs(len(ids) - len(orders)),
        "polls an order": counts["requests"].get("command", 0) / len(ids),
        "worker PSS MB, begin": begin,
        "middle": middle,
        "end": end,
        "most": max(seen.memory) / _MEGABYTE,
        **({} if math.isnan(seen.published) else {"messages/s": seen.published / took}),
    }
    notes = [f"States: {dict(ended)}. Callbacks: {counts['callbacks']}."]
    return {name: [float(value)] for name, value in figures.items()}, notes


def _epoch(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()
