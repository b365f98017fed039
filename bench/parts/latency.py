"""From the POST to the start of the run and to SUCCESS as the client sees it, at a low rate, beside dramatiq behind Flask."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
from collections.abc import Mapping

from bench.harness import load
from bench.harness.ours import RunningGateway
from bench.harness.peers import Peers
from bench.harness.procfs import CpuMeter
from bench.harness.results import rows_of
from bench.harness.statistics import percentile
from bench.harness.turns import OTHERS, MeasuredTurn, interleaved
from bench.parts.base import Measured, add_rounds, add_trees, checkouts, measuring

NAME = "latency"
HELP = "submit → start and → SUCCESS at 20/s, p50 and p99, beside dramatiq behind Flask"

PEER = "Flask + dramatiq 2 × 8"


@dataclasses.dataclass(frozen=True)
class FollowedSystem:
    """A gateway and its worker."""

    gateway: RunningGateway
    pids: Mapping[str, tuple[int, ...]]  #: of its processes and of the servers

    def turn(self, rate: float, count: int) -> dict[str, float]:
        """Submit at the rate; each client follows its task by a long poll."""
        meter = CpuMeter(self.pids)
        outcome, used = load.in_process("follow", self.gateway.url, rate, count, within=60 + count / rate)
        figures = {
            f"{what} p{share} ms": percentile(outcome[key], share / 100)
            for what, key in (("start", "started"), ("SUCCESS", "succeeded"), ("POST", "answered"))
            for share in (50, 99)
        }
        return figures | meter.per_operation(count) | {OTHERS: meter.others(used) * 100}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_rounds(parser, 5)
    add_trees(parser)
    parser.add_argument("--rate", type=float, default=20, help="tasks a second (%(default)s)")
    parser.add_argument("--tasks", type=int, default=150, help="of a turn (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """All systems run; the load alternates."""
    with measuring() as (on, measured), contextlib.ExitStack() as stack:
        systems: dict[str, FollowedSystem] = {}
        for tree in checkouts(options, on):
            gateway, worker = stack.enter_context(tree.gateway()), stack.enter_context(tree.worker("8,2"))
            systems[tree.name] = FollowedSystem(
                gateway, {"gateway": (gateway.program.pid,), "worker": (worker.pid,), **on.pids}
            )
        if not options.no_peers:
            peers = Peers.installed(on)
            gateway, worker = stack.enter_context(peers.flask()), stack.enter_context(peers.dramatiq())
            systems[PEER] = FollowedSystem(
                gateway, {"gateway": (gateway.program.pid,), "worker": (worker.pid,), **on.pids}
            )
        turns: dict[tuple[str, str], MeasuredTurn] = {
            (f"{options.rate:g} tasks a second", name): functools.partial(system.turn, options.rate, options.tasks)
            for name, system in systems.items()
        }
        measured.rows = rows_of(interleaved(turns, options.rounds))
        measured.notes = [
            "Start: the record's `startedAt` (whole ms), dramatiq's first line of the actor. SUCCESS: the answer of a long poll."
        ]
    return measured
