"""What the console costs: CPU of its pages and of its live updates on a system that moves; and what a browser shows of it, when."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

from bench.harness import browser, load, procfs
from bench.harness.browser import Tab
from bench.harness.ours import Checkout, RunningGateway
from bench.harness.results import ResultRow
from bench.harness.servers import ROOT
from bench.harness.turns import progress
from bench.parts import base
from bench.parts.base import OURS, Measured, measuring
from tools import chromium

NAME = "console"
HELP = "CPU of the console's pages and of its viewers while tasks run; first paint, layout shift, blocking time in Chromium"

#: Pages whose CPU is measured.
PAGES = {
    "overview": "/ops", "50 tasks": "/ops/tasks", "200 tasks": "/ops/tasks?limit=200", "dead letters": "/ops/dead-letters",
    "queues": "/ops/queues", "keys": "/ops/keys",
}  # fmt: skip

#: What an open page follows: topics of its stream, and the part that it loads again at an event of the last one.
VIEWS = {
    "overview": ("health,overview", ""),
    "50 tasks": ("health,tasks", "/ops/tasks"),
    "200 tasks": ("health,tasks", "/ops/tasks?limit=200"),
}

#: Requests of a turn, by which its CPU is divided.
_REQUESTS = 40

#: Seconds of one request; until a stream is read again.
_ANSWER = 30.0

#: The headers by which a page loads a part of itself again.
_LIVE = {"HX-Request": "true", "X-Ops-Live": "1"}

#: Seconds in which an open page of 200 tasks is watched.
_WATCHED = 15.0

#: As many pages as have the tasks, at most.
_MOST_PAGES = 60


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--tasks", type=int, default=10_000, help="in the lists (%(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="tasks a second while viewers watch (%(default)s)")
    parser.add_argument("--viewers", type=int, default=20, help="that watch (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="that they do (%(default)s)")
    base.add_rounds(parser, 5)
    parser.add_argument("--cases", default=",".join(_CASES), help="comma-separated (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """Tasks come by one gateway; the console is another's, so that its CPU is the console's alone."""
    limits = {"http_waits_per_principal": 10_000, "http_peer_connections": 0}
    with measuring() as (on, measured):
        checkout = Checkout.prepared(OURS, ROOT, on)
        with checkout.worker("2,2"), checkout.gateway(1) as intake, checkout.gateway(1, **limits) as console:
            intake.fill(options.tasks)
            _until_done(checkout)
            rows: list[ResultRow] = []
            for case in options.cases.split(","):
                _until_read(console)
                rows += _CASES[case](intake, console, options)
        return dataclasses.replace(measured, rows=rows)


def _until_done(checkout: Checkout) -> None:
    while checkout.unfinished():
        time.sleep(0.5)


def _until_read(console: RunningGateway) -> None:
    """The first page of a process that has not been looked at for a while comes without what is in the queues."""
    with httpx.Client(base_url=console.url, timeout=_ANSWER, trust_env=False) as client:
        while "being read" in client.get("/ops").raise_for_status().text:
            time.sleep(0.5)


def _pages(_: RunningGateway, console: RunningGateway, options: argparse.Namespace) -> Iterator[ResultRow]:
    """CPU of a page, while nothing else happens."""
    for name, path in PAGES.items():
        with httpx.Client(base_url=console.url, timeout=_ANSWER, trust_env=False) as client:
            size = len(client.get(path).raise_for_status().content)
            found = [_cpu_of(console, client, path) for _ in range(options.rounds)]
        progress(f"{name}: {statistics.median(found):.1f} ms of CPU")
        yield ResultRow(f"page: {name}", OURS, {"CPU ms": found, "kB": [size / 1_000]})


def _cpu_of(console: RunningGateway, client: httpx.Client, path: str) -> float:
    """CPU of one request, ms."""
    before = procfs.cpu(console.program.pid)
    for _ in range(_REQUESTS):
        client.get(path).raise_for_status()
    return (procfs.cpu(console.program.pid) - before) / _REQUESTS * 1_000


def _viewers(intake: RunningGateway, console: RunningGateway, options: argparse.Namespace) -> Iterator[ResultRow]:
    """CPU of the console's gateway, percent of a core, with one viewer and with many, while tasks run."""
    for name, (topics, part) in VIEWS.items():
        shares, updates = {}, 0.0
        for count in (0, 1, options.viewers):
            with _moving(intake, options.rate, options.seconds + 15), _watching(console, count, topics, part) as seen:
                time.sleep(5)
                before, began, known = procfs.cpu(console.program.pid), time.monotonic(), len(seen)
                time.sleep(options.seconds)
                updates = (len(seen) - known) / max(1, count)
                shares[count] = (procfs.cpu(console.program.pid) - before) / (time.monotonic() - began) * 100
        each = (shares[options.viewers] - shares[1]) / max(1, options.viewers - 1)
        progress(f"viewers of {name}: {each:.2f} % of a core each")
        figures = {
            "none %": shares[0], "one %": shares[1], f"{options.viewers} viewers %": shares[options.viewers], "each further %": each, "updates each": updates,
        }  # fmt: skip
        yield ResultRow(f"viewers: {name}", OURS, {key: [value] for key, value in figures.items()})


@contextlib.contextmanager
def _moving(intake: RunningGateway, rate: float, seconds: float) -> Iterator[None]:
    """Tasks come at a rate, and run."""
    thread = threading.Thread(
        target=lambda: load.in_process("open", intake.url, rate, seconds, within=seconds + 60), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextlib.contextmanager
def _watching(console: RunningGateway, count: int, topics: str, part: str) -> Iterator[list[str]]:
    """Open pages, as their browsers are to the gateway; the events that they get."""
    over, seen = threading.Event(), list[str]()
    given = (console, over, topics, part, seen)
    threads = [threading.Thread(target=_watch, args=given, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join(_ANSWER)


def _watch(console: RunningGateway, over: threading.Event, topics: str, part: str, seen: list[str]) -> None:
    changes = f"event: {topics.rpartition(',')[2]}"
    with httpx.Client(base_url=console.url, timeout=_ANSWER, trust_env=False) as client:
        client.get("/ops").raise_for_status()
        with client.stream("GET", "/ops/live", params={"topics": topics}) as stream:
            for line in stream.iter_lines():
                if over.is_set():
                    return
                if line == changes:
                    seen.append(line)
                    if part:
                        client.get(part, headers=_LIVE).raise_for_status()


def _seen(intake: RunningGateway, console: RunningGateway, options: argparse.Namespace) -> Iterator[ResultRow]:
    """What a user waits for, with an empty cache; and whether thousands of tasks stutter."""
    with chromium.browser() as made:
        for name, path in PAGES.items():
            turns = []
            for _ in range(options.rounds):
                with browser.tab(made, console.url) as tab:
                    turns.append(tab.open(path))
            yield ResultRow(f"browser: {name}", OURS, _columns(turns))
            progress(f"{name}: first paint {statistics.median(turn['FCP ms'] for turn in turns):.0f} ms")
        with browser.tab(made, console.url) as tab:
            yield _through(tab, options.tasks)
        with browser.tab(made, console.url) as tab, _moving(intake, options.rate, _WATCHED + 10):
            tab.open("/ops/tasks?limit=200")
            tab.stay(_WATCHED)
            figures = {"longest task ms": [tab.longest()], "longest frame ms": [tab.scroll()]}
            yield ResultRow(f"browser: 200 tasks, live for {_WATCHED:.0f} s", OURS, figures)


def _through(tab: Tab, tasks: int) -> ResultRow:
    """From page to page through all tasks by the keyboard, each of them scrolled through."""
    tab.open("/ops/tasks?limit=200")
    turns = []
    for _ in range(min(_MOST_PAGES, tasks // 200 - 1)):
        loaded, longest = tab.next("n")
        turns.append({"load ms": loaded, "longest task ms": longest, "longest frame ms": tab.scroll()})
    return ResultRow(f"browser: {200 * (len(turns) + 1):,} tasks, page by page", OURS, _columns(turns))


_CASES: dict[str, Callable[[RunningGateway, RunningGateway, argparse.Namespace], Iterator[ResultRow]]] = {
    "pages": _pages, "viewers": _viewers, "browser": _seen,
}  # fmt: skip


def _columns(turns: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [turn[name] for turn in turns] for name in turns[0]}
