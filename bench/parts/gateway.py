"""Requests a second, latency and CPU of the gateway beside FastAPI, uvicorn, aio-pika and redis-py."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import http.client
import itertools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.harness import load, wrk
from bench.harness.errors import BenchmarkFailed
from bench.harness.ours import RunningGateway
from bench.harness.peers import Peers
from bench.harness.procfs import CpuMeter
from bench.harness.results import rows_of
from bench.harness.servers import BenchServers
from bench.harness.turns import OTHERS, MeasuredTurn, interleaved
from bench.harness.wrk import WrkRequest
from bench.parts.base import Measured, add_rounds, add_trees, checkouts, measuring

NAME = "gateway"
HELP = "POST, POST with a key, GET and 304: requests/s, p50, p99, CPU, beside FastAPI + aio-pika"

PEER = "FastAPI + aio-pika"

#: Kinds of requests and their connections and processes: (kind, connections, processes).
CASES = (
    *(("POST", connections, processes) for processes in (1, 2) for connections in (1, 16, 64)),
    *(("POST with a key", connections, 2) for connections in (16, 64)),
    ("GET", 16, 2),
    ("304", 16, 2),
)

_runs = itertools.count()


@dataclasses.dataclass(frozen=True)
class LoadedGateway:
    """A gateway of a variant, and how its traces are removed."""

    variant: str
    processes: int
    gateway: RunningGateway
    forget: Callable[[], None]
    pids: Mapping[str, tuple[int, ...]]  #: of the servers

    def turn(self, kind: str, connections: int, seconds: float) -> dict[str, float]:
        """One run of wrk.

        Raises:
            BenchmarkFailed: requests failed.
        """
        request = self._request(kind)
        meter = CpuMeter({"server": (self.gateway.program.pid,), **self.pids})
        run_id = f"{time.time_ns()}-{next(_runs)}"
        outcome = wrk.run(request, connections=connections, seconds=seconds, run_id=run_id)
        figures = meter.per_operation(outcome.answered)
        others = meter.others(outcome.cpu)
        self.forget()
        if outcome.failed > outcome.answered / 100:
            raise BenchmarkFailed(f"{self.variant}, {kind}: {outcome.failed} of {outcome.answered} failed")
        return {
            "requests/s": outcome.rate,
            "p50 ms": outcome.p50_ms,
            "p99 ms": outcome.p99_ms,
            **figures,
            "client CPU µs": outcome.cpu / max(1, outcome.answered) * 1e6,
            OTHERS: others * 100,
        }

    def _request(self, kind: str) -> WrkRequest:
        url = f"{self.gateway.url}/v1/tasks"
        if kind.startswith("POST"):
            return WrkRequest(url, body=load.body(), keyed=kind != "POST")
        task, tag = self._submitted()
        return WrkRequest(url + "/" + task, headers={"If-None-Match": tag} if kind == "304" else {})

    def _submitted(self) -> tuple[str, str]:
        """A task and its entity tag."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("POST", "/v1/tasks", body=load.body(), headers={"Content-Type": "application/json"})
            task: dict[str, Any] = json.loads(connection.getresponse().read())
            connection.request("GET", task["statusUrl"])
            answer = connection.getresponse()
            answer.read()
            return str(task["taskId"]), str(answer.headers["ETag"])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    add_rounds(parser, 5)
    add_trees(parser)
    parser.add_argument("--seconds", type=float, default=1, help="of a turn, whole (%(default)s)")
    parser.add_argument("--kinds", help="comma-separated, of: POST, POST with a key, GET, 304")
    parser.add_argument("--connections", help="comma-separated numbers")
    parser.add_argument("--processes", help="comma-separated numbers")


def measure(options: argparse.Namespace) -> Measured:
    """Start each gateway once; the runs of wrk alternate."""
    wrk.require()
    wanted = _wanted(options)
    with measuring() as (on, measured), contextlib.ExitStack() as stack:
        gateways = _started(on, options, {processes for _, _, processes in wanted}, stack)
        turns: dict[tuple[str, str], MeasuredTurn] = {}
        for kind, connections, processes in wanted:
            case = f"{kind}, {connections} connection{'s'[: connections > 1]}, {processes} process{'es'[: 2 * (processes > 1)]}"
            for one in gateways:
                if one.processes == processes:
                    turns[case, one.variant] = functools.partial(one.turn, kind, connections, options.seconds)
        measured.rows = rows_of(interleaved(turns, options.rounds))
    return measured


def _wanted(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """The usual cases; all combinations of what the options name, if they name any."""
    if not (options.kinds or options.connections or options.processes):
        return list(CASES)
    kinds = (options.kinds or "POST,POST with a key,GET,304").split(",")
    connections = map(int, (options.connections or "1,16,64").split(","))
    return list(itertools.product(kinds, connections, map(int, (options.processes or "2").split(","))))


def _started(
    on: BenchServers, options: argparse.Namespace, processes: set[int], stack: contextlib.ExitStack
) -> list[LoadedGateway]:
    trees = checkouts(options, on)
    found = [
        LoadedGateway(tree.name, count, stack.enter_context(tree.gateway(count)), tree.forget, on.pids)
        for count in sorted(processes)
        for tree in trees
    ]
    if not options.no_peers:
        peers = Peers.installed(on)
        found += [
            LoadedGateway(PEER, count, stack.enter_context(peers.fastapi(count)), peers.forget, on.pids)
            for count in sorted(processes)
        ]
    return found
