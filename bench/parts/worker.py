"""Tasks a second and CPU of a worker with two children, beside stock Celery and dramatiq."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from bench.harness import procfs
from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.peers import Peers
from bench.harness.procfs import CpuMeter
from bench.harness.programs import MeasuredProgram
from bench.harness.results import rows_of
from bench.harness.servers import BenchServers
from bench.harness.turns import OTHERS, MeasuredTurn, interleaved, progress
from bench.parts.base import Measured, add_rounds, add_trees, checkouts, measuring

NAME = "worker"
HELP = "exactly-once echo tasks/s and CPU, beside Celery + Redis results and dramatiq + results"

CASE = "echo, 2 children"
CELERY, DRAMATIQ = "Celery prefork + Redis results", "dramatiq 2 × 8 + results"

#: In flight for each process, for all.
PREFETCH = 20

#: Shares of the tasks that are done when the measurement begins and ends.
_FIRST, _LAST = 0.1, 0.9

#: Seconds for one turn.
_PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class DrainedWorker:
    """A variant: its queue is filled, then its worker is started and empties it."""

    variant: str
    forget: Callable[[], None]
    fill: Callable[[int], object]
    done: Callable[[int], int]  #: of so many tasks, those that have ended
    workers: Sequence[Callable[[], AbstractContextManager[MeasuredProgram]]]
    on: BenchServers

    def turn(self, tasks: int) -> dict[str, float]:
        """Fill, drain, and measure between a tenth and nine tenths.

        Raises:
            BenchmarkFailed: the worker ended, or took too long.
        """
        self.forget()
        self.fill(tasks)
        with ExitStack() as stack:
            workers = [stack.enter_context(worker()) for worker in self.workers]
            self._until(workers, tasks, _FIRST)
            first, began = self.done(tasks), time.perf_counter()
            meter, mains = CpuMeter({"worker": _pids(workers), **self.on.pids}), _mains(workers)
            self._until(workers, tasks, _LAST)
            count, took = self.done(tasks) - first, time.perf_counter() - began
            figures, others = meter.per_operation(count), meter.others()
            figures["main process CPU µs"] = (_mains(workers) - mains) / count * 1e6
            memory = sum(procfs.pss(worker.pid) for worker in workers)
            self._until(workers, tasks, 1)
        self.forget()
        return {"tasks/s": count / took, **figures, "PSS MB": memory / 1e6, OTHERS: others * 100}

    def _until(self, workers: Sequence[MeasuredProgram], tasks: int, share: float) -> None:
        """Wait until this share of the tasks has ended; each worker must go on."""

        def far_enough() -> bool:
            if any(worker.ended() for worker in workers):
                raise BenchmarkFailed(f"{self.variant} ended:\n" + "\n".join(one.last_output() for one in workers))
            return self.done(tasks) >= tasks * share

        workers[0].require(far_enough, f"{self.variant}, {share:.0%} of {tasks} tasks", _PATIENCE)


def _pids(workers: Sequence[MeasuredProgram]) -> list[int]:
    return [worker.pid for worker in workers]


def _mains(workers: Sequence[MeasuredProgram]) -> float:
    """CPU seconds of the processes that were started, without their children."""
    return sum(procfs.own_cpu(pid) for pid in _pids(workers))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_rounds(parser, 5)
    add_trees(parser)
    parser.add_argument("--tasks", type=int, default=2_500, help="of a turn (%(default)s)")
    parser.add_argument(
        "--pools",
        default="prefork,threads",
        help="of our worker; threads are left out where it refuses them (%(default)s)",
    )
    parser.add_argument("--threads", type=int, default=8, help="of a worker with --pool=threads (%(default)s)")
    parser.add_argument("--thread-workers", type=int, default=2, help="workers with --pool=threads (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """Turns of all variants alternate."""
    with measuring() as (on, measured), ExitStack() as stack:
        variants, notes = _ours(on, options, stack)
        measured.notes = notes
        if not options.no_peers:
            variants += _peers(on)
        turns: dict[tuple[str, str], MeasuredTurn] = {
            (CASE, one.variant): functools.partial(one.turn, options.tasks) for one in variants
        }
        measured.rows = rows_of(interleaved(turns, options.rounds, warm_up=0))
    return measured


def _ours(on: BenchServers, options: argparse.Namespace, stack: ExitStack) -> tuple[list[DrainedWorker], list[str]]:
    found, notes = [], []
    pools = options.pools.split(",")
    for tree in checkouts(options, on):
        gateway = stack.enter_context(tree.gateway())
        if "prefork" in pools:
            worker = functools.partial(tree.worker, "2,2", prefetch_multiplier=PREFETCH)
            found.append(_drained(tree, gateway, tree.name, [worker]))
        if "threads" in pools and (reason := _refused(tree, options.threads)):
            notes.append(f"{tree.name}, --pool=threads: left out, since the worker refuses it: {reason}")
            progress(notes[-1])
        elif "threads" in pools:
            workers = [functools.partial(tree.threads, options.threads)] * options.thread_workers
            name = f"{tree.name}, --pool=threads {options.thread_workers} × {options.threads}"
            found.append(_drained(tree, gateway, name, workers))
    return found, notes


def _drained(
    tree: Checkout,
    gateway: RunningGateway,
    name: str,
    workers: Sequence[Callable[[], AbstractContextManager[MeasuredProgram]]],
) -> DrainedWorker:
    def done(tasks: int) -> int:
        return tasks - tree.unfinished()

    return DrainedWorker(name, tree.forget, gateway.fill, done, workers, tree.servers)


def _refused(tree: Checkout, threads: int) -> str:
    """The worker's reason; empty when it starts."""
    with tree.threads(threads) as worker:
        try:
            worker.require(lambda: "ready." in worker.last_output(), "a worker with this pool")
        except BenchmarkFailed as exc:
            return str(exc).strip().splitlines()[-1][-200:]
    return ""


def _peers(on: BenchServers) -> list[DrainedWorker]:
    peers = Peers.installed(on)

    def done(_: int) -> int:
        return peers.results()

    return [
        DrainedWorker(CELERY, peers.forget, lambda count: peers.fill("celery_tasks", count), done, [peers.celery], on),
        DrainedWorker(
            DRAMATIQ, peers.forget, lambda count: peers.fill("dramatiq_tasks", count), done, [peers.dramatiq], on
        ),
    ]
