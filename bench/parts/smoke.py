"""The CPU of a task beside stock Celery's, in one run: what `make check` looks at.

Compared with the ratios of ``bench/smoke.json``. CPU time, not time: other load makes both dearer, hardly their ratio. A turn that fails
the comparison is no verdict; the median of the turns, and a bound far from the recorded ratio, are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from bench.harness import procfs
from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.peers import Peers
from bench.harness.programs import MeasuredProgram
from bench.harness.results import rows_of
from bench.harness.servers import ROOT
from bench.harness.statistics import Spread, paired_ratio
from bench.harness.turns import Samples, interleaved, progress
from bench.parts.base import OURS, Measured, measuring

NAME = "smoke"
HELP = "CPU of a task and of a POST beside stock Celery's task; fails when far from the ratios of bench/smoke.json"

CASE = "echo, 2 children"
CELERY = "stock Celery"

#: CPU µs of our worker for a task and of our gateway for a POST, each as a multiple of stock Celery's CPU for a task.
TASK, POST = "worker CPU µs", "gateway CPU µs"

#: How much dearer than recorded a ratio may be.
TOLERANCE = 2.0

RECORDED = ROOT / "bench" / "smoke.json"

#: Seconds for one turn on a machine with much other load.
_PATIENCE = 240.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--rounds", type=int, default=3, help="turns of each that count (%(default)s)")
    parser.add_argument("--tasks", type=int, default=250, help="of a turn (%(default)s)")
    parser.add_argument("--record", action="store_true", help="write the ratios of this run to bench/smoke.json")


def measure(options: argparse.Namespace) -> Measured:
    """Both workers run; each turn submits tasks to one of them.

    Raises:
        BenchmarkFailed: a ratio is far from the recorded one.
    """
    with measuring() as (on, measured), contextlib.ExitStack() as stack:
        tree, peers = Checkout.prepared(OURS, ROOT, on), Peers.of_this_environment(on)
        worker, stock = stack.enter_context(tree.worker(prefetch_multiplier=20)), stack.enter_context(peers.celery())
        gateway = stack.enter_context(tree.gateway(1))
        turns = {
            (CASE, OURS): lambda: _ours(tree, gateway, worker, options.tasks),
            (CASE, CELERY): lambda: _stock(peers, stock, options.tasks),
        }
        samples = interleaved(turns, options.rounds)
        measured.rows = rows_of(samples)
    found = ratios(samples)
    if options.record:
        RECORDED.write_text(
            json.dumps({name: round(ratio.median, 2) for name, ratio in found.items()}, indent=1) + "\n"
        )
    _check(found, recorded(RECORDED))
    return measured


def ratios(samples: Samples) -> dict[str, Spread]:
    """Our figures as multiples of stock Celery's CPU for a task."""
    ours, stock = samples[CASE, OURS], samples[CASE, CELERY]
    return {name: paired_ratio(ours[name], stock[TASK]) for name in (TASK, POST)}


def recorded(path: Path) -> dict[str, float]:
    """The ratios of the repository."""
    found: dict[str, float] = json.loads(path.read_text())
    return found


def dearer(found: Mapping[str, Spread], known: Mapping[str, float]) -> list[str]:
    """What costs more than the tolerance beyond what is recorded, a line each."""
    return [
        f"{name}: {found[name].median:.2f} × stock Celery's task ({found[name].low:.2f}–{found[name].high:.2f}), recorded: {known[name]:.2f}"
        for name in known
        if found[name].median > TOLERANCE * known[name]
    ]


def _check(found: Mapping[str, Spread], known: Mapping[str, float]) -> None:
    for name, ratio in found.items():
        progress(
            f"{name}: {ratio.median:.2f} × stock Celery's task ({ratio.low:.2f}–{ratio.high:.2f}), recorded: {known[name]:.2f}"
        )
    if lines := dearer(found, known):
        raise BenchmarkFailed("\n".join(["more than twice as dear as recorded:", *lines]))


def _ours(tree: Checkout, gateway: RunningGateway, worker: MeasuredProgram, tasks: int) -> dict[str, float]:
    before, served = procfs.cpu(worker.pid), procfs.cpu(gateway.program.pid)
    gateway.fill(tasks)
    served = procfs.cpu(gateway.program.pid) - served
    worker.require(lambda: not tree.unfinished(), "our worker does all", _PATIENCE)
    return {TASK: (procfs.cpu(worker.pid) - before) / tasks * 1e6, POST: served / tasks * 1e6}


def _stock(peers: Peers, worker: MeasuredProgram, tasks: int) -> dict[str, float]:
    peers.forget()
    before = procfs.cpu(worker.pid)
    peers.fill("celery_tasks", tasks)
    worker.require(lambda: peers.results() >= tasks, "stock Celery does all", _PATIENCE)
    return {TASK: (procfs.cpu(worker.pid) - before) / tasks * 1e6}
