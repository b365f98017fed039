"""What a long queue costs: rates of publishing and consuming at two depths, bytes of a waiting task, memory of the processes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable

from bench.harness import load, procfs, wrk
from bench.harness.backlog import copy_tasks
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.procfs import CpuMeter
from bench.harness.results import ResultRow, rows_of
from bench.harness.servers import ROOT, started
from bench.harness.turns import OTHERS, MeasuredTurn, interleaved, progress
from bench.harness.wrk import WrkRequest
from bench.parts.base import OURS, Measured, add_rounds, measuring

NAME = "growth"
HELP = "publish and consume rates with an empty and a long queue, bytes of a waiting task, memory of worker and gateway"

PUBLISH, CONSUME = "POST, 16 connections", "consume, 2 children"
EMPTY = "empty queue"
TASK_MEMORY, PROCESS_MEMORY = "memory of a waiting task", "memory of the processes"

#: Tasks that a turn of consuming measures, and those that it lets pass before.
_CONSUMED, _PASSED = 1_000, 200

#: Tasks that are still there when a turn of consuming ends.
_SPARE = 400

#: Tasks for the bytes of one.
_WEIGHED = 4_000

#: Children of a worker that has grown.
_GROWN = 8

WORKER_PSS = f"worker, {_GROWN} children, PSS MB"

_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class Backlogged:
    """A checkout with servers of its own and a queue of some depth."""

    tree: Checkout
    gateway: RunningGateway
    depth: int

    @property
    def name(self) -> str:
        """Of the variant."""
        return f"{self.depth:,} waiting" if self.depth else EMPTY

    def publish(self, seconds: float) -> dict[str, float]:
        """A run of wrk."""
        meter = CpuMeter({"gateway": (self.gateway.program.pid,), **self.tree.servers.pids})
        request = WrkRequest(f"{self.gateway.url}/v1/tasks", body=load.body())
        outcome = wrk.run(request, connections=16, seconds=seconds, run_id="")
        figures = meter.per_operation(outcome.answered)
        return {
            "requests/s": outcome.rate,
            "p99 ms": outcome.p99_ms,
            **figures,
            OTHERS: meter.others(outcome.cpu) * 100,
        }

    def consume(self) -> dict[str, float]:
        """A worker, after its first tasks; afterwards the queue is as deep as before."""
        missing = self.depth + _PASSED + _CONSUMED + _SPARE - self.tree.unfinished()
        if missing > 0:
            self.gateway.fill(missing)
        with self.tree.worker("2,2", prefetch_multiplier=20) as worker:
            count = self.tree.unfinished()
            worker.require(lambda: self.tree.unfinished() <= count - _PASSED, "a worker that begins", _PATIENCE)
            first, began = self.tree.unfinished(), time.perf_counter()
            meter = CpuMeter({"worker": (worker.pid,), **self.tree.servers.pids})
            worker.require(lambda: self.tree.unfinished() <= first - _CONSUMED, "a worker that goes on", _PATIENCE)
            done, took = first - self.tree.unfinished(), time.perf_counter() - began
            figures, others = meter.per_operation(done), meter.others()
        if not self.depth:
            self.tree.forget()
        return {"tasks/s": done / took, **figures, OTHERS: others * 100}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_rounds(parser, 5)
    parser.add_argument("--depth", type=int, default=100_000, help="waiting tasks of the long queue (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2, help="of a turn of publishing, whole (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """An empty and a long queue, each with servers of its own, so that their turns can alternate."""
    wrk.require()
    with measuring() as (on, measured), started() as other, contextlib.ExitStack() as stack:
        memory = _weighed(Checkout.prepared(OURS, ROOT, on), options.depth)
        both = []
        for servers, depth in ((other, 0), (on, options.depth)):
            tree = Checkout.prepared(OURS, ROOT, servers)
            both.append(Backlogged(tree, stack.enter_context(tree.gateway()), depth))
        turns: dict[tuple[str, str], MeasuredTurn] = {}
        for case, turn in _turns(options.seconds):
            turns |= {(case, one.name): functools.partial(turn, one) for one in both}
        samples = interleaved(turns, options.rounds, warm_up=0)
        measured.rows = [*rows_of(samples), memory, _processes(both[0])]
        measured.notes = [
            f"Redis per task: {_WEIGHED:,} tasks by POST; RabbitMQ per task: {options.depth:,} copies of one."
        ]
    return measured


def _turns(seconds: float) -> list[tuple[str, Callable[[Backlogged], dict[str, float]]]]:
    return [(PUBLISH, lambda one: one.publish(seconds)), (CONSUME, lambda one: one.consume())]


def _weighed(tree: Checkout, depth: int) -> ResultRow:
    """Make the long queue; the bytes of a waiting task."""
    with tree.gateway() as gateway:
        first = gateway.fill(100)[0]  # what there is only one of is there now
        before = tree.servers.memory()
        gateway.fill(_WEIGHED)
        middle = tree.servers.memory()
    began = time.monotonic()
    copy_tasks(tree, first, max(0, depth - _WEIGHED))
    after = tree.servers.memory()
    progress(f"{tree.waiting():,} waiting after {time.monotonic() - began:.0f} s")
    copied = max(1, depth - _WEIGHED)
    figures = {
        "Redis B": (middle["Redis"] - before["Redis"]) / _WEIGHED,
        "Redis B, copies": (after["Redis"] - middle["Redis"]) / copied,
        "RabbitMQ B": (after["RabbitMQ"] - middle["RabbitMQ"]) / copied,
        "RabbitMQ B, PSS": (after["RabbitMQ PSS"] - middle["RabbitMQ PSS"]) / copied,
    }
    return ResultRow(TASK_MEMORY, OURS, {name: [value] for name, value in figures.items()})


def _processes(one: Backlogged) -> ResultRow:
    """PSS of a gateway that has served, and of a worker at `--autoscale=8,2` with all its children."""
    one.gateway.fill(_WEIGHED)
    gateway = procfs.pss(one.gateway.program.pid)
    one.gateway.fill(2 * _GROWN, {"sleep_seconds": 20})
    with one.tree.worker(f"{_GROWN},2") as worker:
        worker.require(lambda: len(list(procfs.tree(worker.pid))) > _GROWN, "a worker that grows")
        worker.require(lambda: one.tree.unfinished() <= 2 * _GROWN, "a worker that has done what is short", _PATIENCE)
        grown = procfs.pss(worker.pid)
    one.tree.forget()
    figures = {"gateway, 2 processes, PSS MB": [gateway / 1e6], WORKER_PSS: [grown / 1e6]}
    return ResultRow(PROCESS_MEMORY, OURS, figures)
