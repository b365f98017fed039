"""What failing costs: the ladder, dead letters, and their redrive."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from typing import Any

from bench.harness.ours import Checkout, RunningGateway
from bench.harness.procfs import CpuMeter
from bench.harness.programs import MeasuredProgram
from bench.harness.results import ResultRow
from bench.harness.servers import BenchServers
from bench.harness.turns import OTHERS, progress
from bench.parts.base import Measured, checkouts, measuring

NAME = "failures"
HELP = "a task that climbs all rungs (1, 2 and 3 s), dead letters a second, the redrive of many"

#: The ladder's waits, seconds.
_RUNGS = (1, 2, 3)

_PATIENCE = 600.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--tree", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--climbing", type=int, default=300, help="tasks of a turn that fail four times (%(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="of the ladder and of the dead letters (%(default)s)")
    parser.add_argument("--letters", type=int, default=10_000, help="dead letters that are redriven (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """In this order, on one queue of each checkout, whose turns alternate."""
    ladder = ",".join(f"{name}={seconds}" for name, seconds in zip(("1m", "5m", "30m"), _RUNGS, strict=True))
    with measuring(ladder=ladder) as (on, measured), contextlib.ExitStack() as stack:
        trees = checkouts(options, on)
        with contextlib.ExitStack() as workers:
            metered = [_Metered.started(tree, on, stack, workers) for tree in trees]
            each = max(1, options.letters // options.turns)
            climbs = _alternating(metered, options.turns, options.climbing, {"fail_times": 1_000})
            deaths = _alternating(metered, options.turns, each, {"permanent": True})
        redrives = {tree.name: _redriven(tree, on) for tree in trees[:1]}  # an older command has other options
    turns = (
        (f"{options.climbing} tasks climb all rungs", climbs, sum(_RUNGS)),
        ("tasks that fail for good", deaths, 0),
    )
    measured.rows = [
        *(ResultRow(case, name, _columns(each, waits)) for case, of, waits in turns for name, each in of.items()),
        *(ResultRow("redrive of all dead letters", name, _columns([of], 0)) for name, of in redrives.items()),
    ]
    measured.notes = [f"Ladder {ladder}; the least time of a climb is {sum(_RUNGS)} s."]
    return measured


def _alternating(
    metered: list[_Metered], turns: int, count: int, payload: dict[str, Any]
) -> dict[str, list[dict[str, float]]]:
    """The figures of each turn, by checkout."""
    figures: dict[str, list[dict[str, float]]] = {each.name: [] for each in metered}
    for _ in range(turns):
        for each in metered:
            figures[each.name].append(each.turn(count, payload))
    return figures


class _Metered:
    def __init__(self, tree: Checkout, gateway: RunningGateway, worker: MeasuredProgram, on: BenchServers) -> None:
        self._tree, self._gateway, self._worker, self._on = tree, gateway, worker, on
        self.name = tree.name

    @classmethod
    def started(
        cls, tree: Checkout, on: BenchServers, stack: contextlib.ExitStack, workers: contextlib.ExitStack
    ) -> _Metered:
        """The programs of a checkout, warm: its worker ends with the second stack."""
        made = cls(tree, stack.enter_context(tree.gateway()), workers.enter_context(tree.worker("8,2")), on)
        made.turn(20, {"fail_times": 1_000})
        return made

    def turn(self, count: int, payload: dict[str, Any]) -> dict[str, float]:
        """Submit tasks and wait until all have ended in the DLQ."""
        dead = _dead(self._tree)
        meter = CpuMeter({"gateway": (self._gateway.program.pid,), "worker": (self._worker.pid,), **self._on.pids})
        began = time.monotonic()
        self._gateway.fill(count, payload)
        filled = time.monotonic()
        self._worker.require(lambda: _dead(self._tree) >= dead + count, "dead letters", _PATIENCE)
        ended = time.monotonic()
        figures = {"from the last POST s": ended - filled, "all s": ended - began, "tasks/s": count / (ended - began)}
        progress(f"{self.name}: {count} dead letters after {ended - began:.1f} s")
        return figures | meter.per_operation(count) | {OTHERS: meter.others() * 100}


def _columns(turns: list[dict[str, float]], waits: float) -> dict[str, list[float]]:
    """Values by figure; with waits, the time beyond them is one more."""
    columns = {name: [turn[name] for turn in turns] for name in turns[0]}
    if not waits:
        return columns
    return {"beyond the rungs s": [seconds - waits for seconds in columns.pop("from the last POST s")], **columns}


def _dead(tree: Checkout) -> int:
    with contextlib.closing(tree.servers.redis(tree.database)) as client:
        return int(client.zcard("robot:dead"))


def _redriven(tree: Checkout, on: BenchServers) -> dict[str, float]:
    """`dlq redrive --all`, without a worker, so that the tasks stay where they go."""
    count = _dead(tree)
    meter, client = CpuMeter(on.pids), os.times()
    began = time.monotonic()
    summary = tree.command("dlq", "redrive", "--all", "--yes", within=_PATIENCE).strip().splitlines()[-1]
    took, used = time.monotonic() - began, os.times()
    progress(f"{took:.1f} s: {summary}")
    command = used.children_user + used.children_system - client.children_user - client.children_system
    figures = {
        "dead letters": float(count),
        "redriven": float(tree.waiting()),
        "s": took,
        "redriven/s": tree.waiting() / took,
    }
    return figures | {"command CPU µs": command / max(1, count) * 1e6, **meter.per_operation(count)}
