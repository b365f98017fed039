"""Many waiting tasks are paused and resumed while clients poll and other tasks go on: rates, losses, duplicates, delays of the others."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.results import ResultRow
from bench.harness.statistics import percentile
from bench.harness.turns import progress
from bench.parts import base
from bench.parts.base import Measured, measuring

NAME = "resume"
HELP = "many waiting tasks paused and resumed: held and sent a second, lost, doubled; the delay of others meanwhile"

#: What is paused, and where its copies wait.
_PAUSE, _HOLD_QUEUE = "/v1/pauses/type:echo", "robot.hold.q"

#: Seconds between two looks; between two tasks of the type that is not paused; between two polls of a client; of one request.
_LOOK, _OTHERS, _POLLS, _ANSWER = 0.5, 0.25, 0.02, 30.0

#: Of so many polls one reads a list.
_EACH_LIST = 5

#: Seconds after which the run has failed.
_PATIENCE = 900.0

#: Records that are read at once.
_CHUNK = 500


@dataclasses.dataclass
class ResumeRun:
    """What is seen of one run."""

    polls: int = 0
    others: list[str] = dataclasses.field(default_factory=list)  #: ids of the tasks that are not paused
    held: float = 0.0  #: seconds from the worker's start until all are held
    resumed_at: float = 0.0  #: epoch seconds


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--tasks", type=int, default=10_000, help="how many wait (%(default)s)")
    parser.add_argument("--pollers", type=int, default=4, help="clients that poll meanwhile (%(default)s)")
    parser.add_argument(
        "--readers", type=int, default=0, help="clients that read all records from Redis, again and again (%(default)s)"
    )
    parser.add_argument("--rate", type=float, default=200.0, help="DISPATCH_RESUME_RATE (%(default)s)")
    parser.add_argument("--children", type=int, default=2, help="processes of the worker (%(default)s)")
    base.add_trees(parser)


def measure(options: argparse.Namespace) -> Measured:
    """One turn of each checkout."""
    with measuring() as (on, measured):
        rows = [_row(checkout, options) for checkout in base.checkouts(options, on)]
        return dataclasses.replace(measured, rows=rows)


def _row(checkout: Checkout, options: argparse.Namespace) -> ResultRow:
    seen = ResumeRun()
    with (
        checkout.gateway(workers=1) as gateway,
        httpx.Client(base_url=gateway.url, timeout=_ANSWER, trust_env=False) as client,
    ):
        ids = gateway.fill(options.tasks)
        client.put(_PAUSE, json={"reason": "a benchmark"}).raise_for_status()
        settings = {"http_allowed_hosts": f"127.0.0.1:{gateway.port}", "resume_rate": options.rate}
        began = time.monotonic()
        with checkout.worker(f"{options.children},{options.children}", **settings) as program:
            program.require(lambda: _held(checkout) > 0, "a worker that holds")
            with (
                _others(gateway, seen),
                _pollers(gateway, ids, options.pollers, seen),
                _readers(checkout, ids, options.readers),
            ):
                _until(lambda: _held(checkout) >= options.tasks, "all are held")
                seen.held = time.monotonic() - began
                progress(f"{options.tasks:,} held in {seen.held:.1f} s")
                client.delete(_PAUSE).raise_for_status()
                seen.resumed_at = time.time()
                _until(lambda: _listed(checkout) == 0, "all are sent")
            _until(lambda: checkout.unfinished() == 0, "all have ended")
    return ResultRow(f"{options.tasks:,} tasks", checkout.name, _figures(checkout, ids, seen, options))


def _held(checkout: Checkout) -> int:
    return checkout.servers.depth(checkout.broker_url, _HOLD_QUEUE)


def _listed(checkout: Checkout) -> int:
    """Tasks that are still to be sent; their old copies leave the hold queue by themselves, later."""
    with contextlib.closing(checkout.servers.redis(checkout.database)) as client:
        return int(client.zcard("robot:held:type:echo"))


def _until(condition: Callable[[], object], expected: str) -> None:
    """Wait for a condition.

    Raises:
        BenchmarkFailed: it does not come.
    """
    until = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise BenchmarkFailed(f"{expected}: not within {_PATIENCE:.0f} s")
        time.sleep(_LOOK)


@contextlib.contextmanager
def _others(gateway: RunningGateway, seen: ResumeRun) -> Iterator[None]:
    """Submit short tasks of another type at a steady pace."""
    body = {"type": "http.request", "payload": {"url": f"{gateway.url}/livez", "method": "GET"}}

    def submit(client: httpx.Client) -> float:
        response = client.post("/v1/tasks", json=body)
        if response.status_code == httpx.codes.ACCEPTED:
            seen.others.append(str(response.json()["taskId"]))
        return _OTHERS

    with _clients(gateway, [submit]):
        yield


@contextlib.contextmanager
def _pollers(gateway: RunningGateway, ids: Sequence[str], count: int, seen: ResumeRun) -> Iterator[None]:
    """Clients that read the state of their tasks again and again."""

    def poll(client: httpx.Client) -> float:
        if seen.polls % _EACH_LIST:
            client.get(f"/v1/tasks/{random.choice(ids)}")
        else:
            client.get("/v1/tasks", params={"state": "HELD", "limit": 200})
        seen.polls += 1
        return _POLLS

    with _clients(gateway, [poll] * count):
        yield


@contextlib.contextmanager
def _readers(checkout: Checkout, ids: Sequence[str], count: int) -> Iterator[None]:
    """Threads that keep Redis busy."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            _records(checkout, ids)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_ANSWER)


@contextlib.contextmanager
def _clients(gateway: RunningGateway, acts: Sequence[Callable[[httpx.Client], float]]) -> Iterator[None]:
    """Run each act on a thread of its own until the end, with the pause in seconds that it returns."""
    over = threading.Event()

    def run(act: Callable[[httpx.Client], float]) -> None:
        with httpx.Client(base_url=gateway.url, timeout=_ANSWER, trust_env=False) as client:
            pause = 0.0
            while not over.wait(pause):
                with contextlib.suppress(httpx.HTTPError):
                    pause = act(client)

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(_ANSWER)


def _figures(
    checkout: Checkout, ids: Sequence[str], seen: ResumeRun, options: argparse.Namespace
) -> dict[str, list[float]]:
    records, others = _records(checkout, ids), _records(checkout, seen.others)
    started = sorted(float(record["startedAt"]) / 1_000 for record in records if "startedAt" in record)
    took = [(float(one["finishedAt"]) - float(one["createdAt"])) / 1_000 for one in others if "finishedAt" in one]
    hops = list(_hops(checkout, ids))
    sent = sorted(hop["at"] / 1_000 for each in hops for hop in each if hop["kind"] == "released")
    runs = collections.Counter(_runs(each) for each in hops)
    figures = {
        "held/s": options.tasks / seen.held,
        "first after s": started[0] - seen.resumed_at,
        "all after s": started[-1] - seen.resumed_at,
        "sent/s": (len(sent) - 1) / (sent[-1] - sent[0]),
        "started/s": (len(started) - 1) / (started[-1] - started[0]),
        "lost": sum(record.get("state") != "SUCCEEDED" for record in records),
        "doubled": sum(count for number, count in runs.items() if number > 1),
        "others": len(others),
        "others lost": sum(record.get("state") != "SUCCEEDED" for record in others),
        "others p50 s": percentile(took, 0.5),
        "others p99 s": percentile(took, 0.99),
        "polls": seen.polls,
    }
    return {name: [float(value)] for name, value in figures.items()}


def _records(checkout: Checkout, ids: Sequence[str]) -> list[dict[str, str]]:
    """The records, straight from Redis: thousands at once."""
    found: list[dict[str, str]] = []
    with contextlib.closing(checkout.servers.redis(checkout.database)) as client:
        for at in range(0, len(ids), _CHUNK):
            pipeline = client.pipeline(transaction=False)
            for task_id in ids[at : at + _CHUNK]:
                pipeline.hgetall(f"robot:task:{{{task_id}}}")
            found += [{key.decode(): value.decode() for key, value in each.items()} for each in pipeline.execute()]
    return found


def _hops(checkout: Checkout, ids: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    with contextlib.closing(checkout.servers.redis(checkout.database)) as client:
        for at in range(0, len(ids), _CHUNK):
            pipeline = client.pipeline(transaction=False)
            for task_id in ids[at : at + _CHUNK]:
                pipeline.lrange(f"robot:hops:{{{task_id}}}", 0, -1)
            yield from ([json.loads(hop) for hop in hops] for hops in pipeline.execute())


def _runs(hops: Sequence[dict[str, Any]]) -> int:
    """How often a task began to run; a run that was given back before its handler began is none."""
    kinds = collections.Counter(hop["kind"] for hop in hops)
    return kinds["started"] - kinds["stopped"]
