"""The whole system on this machine: POST, queue, worker, status; rising rates, and the load test at 100 tasks a second."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Mapping

from bench.harness import load
from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.procfs import CpuMeter
from bench.harness.results import ResultRow
from bench.harness.statistics import rising_until
from bench.harness.turns import OTHERS, progress
from bench.parts.base import OURS, Measured, checkouts, measuring

NAME = "system"
HELP = "tasks/s through POST, queue, worker and status until the p99 of the POST passes 50 ms; the load test at 100/s"

#: Of the POST; above it, a rate is not sustained.
LIMIT_MS = 50.0

HIGHEST = f"highest rate with p99 of the POST ≤ {LIMIT_MS:g} ms"

#: How a climb's cases end, after the rate.
RATE = " tasks a second"

#: Shares: of the rate, that must be reached; of the tasks that are read, that must have succeeded a second after their POST.
_REACHED, _SUCCEEDED = 0.97, 0.97

_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class LoadedSystem:
    """Gateway processes, a worker with two to eight children, both servers."""

    tree: Checkout
    gateway: RunningGateway
    pids: Mapping[str, tuple[int, ...]]

    def step(self, rate: float, seconds: float, reads: float) -> tuple[dict[str, float], bool]:
        """One rate: its figures, and whether it was sustained.

        Raises:
            BenchmarkFailed: tasks did not end.
        """
        meter = CpuMeter(self.pids)
        outcome, used = load.in_process("open", self.gateway.url, rate, seconds, reads, within=120 + seconds)
        others, began = meter.others(used), time.monotonic()
        while self.tree.unfinished():
            if time.monotonic() - began > _PATIENCE:
                raise BenchmarkFailed(f"{self.tree.unfinished()} tasks had not ended after {_PATIENCE:.0f} s")
            time.sleep(0.05)
        errors = _errors(outcome["statuses"])
        figures = {f"POST {name}": value for name, value in outcome.items() if name.startswith("p")}
        figures |= {
            "reached/s": outcome["rate"],
            "errors": float(errors),
            "done after 1 s %": outcome["succeeded"] * 100,
        }
        figures |= meter.per_operation(round(rate * seconds)) | {OTHERS: others * 100}
        good = outcome["p99 ms"] <= LIMIT_MS and outcome["rate"] >= rate * _REACHED
        good = good and outcome["succeeded"] >= _SUCCEEDED
        progress(
            f"{rate:g}/s: p99 {outcome['p99 ms']:.1f} ms, {errors} errors, {outcome['succeeded']:.0%} done after 1 s"
        )
        return figures, good and not errors


def _errors(statuses: Mapping[str, int]) -> int:
    return sum(count for answer, count in statuses.items() if answer not in {"POST 202", "GET 200"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--tree", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument(
        "--climbs", type=int, default=3, help="from the first rate to the last sustained one (%(default)s)"
    )
    parser.add_argument("--first", type=float, default=200, help="tasks a second (%(default)s)")
    parser.add_argument("--step", type=float, default=50, help="tasks a second more each step (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="of a step (%(default)s)")
    parser.add_argument(
        "--reads", type=float, default=1, help="share of the tasks whose status is read once (%(default)s)"
    )
    parser.add_argument(
        "--gateway-processes",
        type=int,
        default=1,
        help="two of them share the cores with all else, and what each one's loop brings together is half (%(default)s)",
    )
    parser.add_argument("--load-test", type=float, default=30, help="seconds at 100 tasks a second (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """The load test first, then the climbs."""
    with measuring() as (on, measured), contextlib.ExitStack() as stack:
        tree = checkouts(options, on)[0]
        gateway = stack.enter_context(tree.gateway(options.gateway_processes))
        worker = stack.enter_context(tree.worker("8,2"))
        system = LoadedSystem(tree, gateway, {"gateway": (gateway.program.pid,), "worker": (worker.pid,), **on.pids})
        system.step(50, 4, options.reads)  # warms up
        rows = []
        if options.load_test:
            figures, _ = system.step(100, options.load_test, 0)
            rows.append(ResultRow(f"100 tasks a second for {options.load_test:g} s", OURS, _listed(figures)))
        measured.rows = rows + _climbed(system, options)
    return measured


def _climbed(system: LoadedSystem, options: argparse.Namespace) -> list[ResultRow]:
    """A row of the highest sustained rates, one of each rate; a later climb begins two steps below the end of the one before."""
    highest: list[float] = []
    found: dict[float, dict[str, list[float]]] = {}
    first = options.first
    for number in range(options.climbs):
        steps: list[tuple[float, bool]] = []
        while not steps or steps[-1][1]:
            rate = first + options.step * len(steps)
            figures, good = _best_of_two(system, rate, options)
            steps.append((rate, good))
            for name, value in figures.items():
                found.setdefault(rate, {}).setdefault(name, []).append(value)
        highest.append(rising_until(steps))
        first = max(options.first, highest[-1] - 2 * options.step)
        progress(f"climb {number + 1} of {options.climbs}: {highest[-1]:g}/s")
    head = ResultRow(HIGHEST, OURS, {"tasks/s": highest}) if highest else None
    rates = [ResultRow(f"{rate:g}{RATE}", OURS, figures) for rate, figures in sorted(found.items())]
    return [*([head] if head else []), *rates]


def _best_of_two(system: LoadedSystem, rate: float, options: argparse.Namespace) -> tuple[dict[str, float], bool]:
    """A rate is tried again before it counts as not sustained: one pause of the machine is not its limit."""
    figures, good = system.step(rate, options.seconds, options.reads)
    return (figures, good) if good else system.step(rate, options.seconds, options.reads)


def _listed(figures: Mapping[str, float]) -> dict[str, list[float]]:
    return {name: [float(value)] for name, value in figures.items()}
