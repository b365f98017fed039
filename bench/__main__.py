"""Command line: ``python -m bench PART [options]``, ``all``, ``report``."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from bench.harness import machine
from bench.harness.errors import BenchmarkFailed
from bench.harness.results import PartResult
from bench.harness.servers import ROOT
from bench.harness.turns import progress
from bench.parts import (
    clients,
    console,
    failures,
    gateway,
    growth,
    latency,
    letters,
    orders,
    resume,
    shards,
    smoke,
    system,
    telemetry,
    worker,
)
from bench.parts.base import BenchPart
from bench.report import page, tables

#: What `make bench` measures, in this order.
PARTS = cast("tuple[BenchPart, ...]", (gateway, worker, latency, system, growth, failures))

#: What only runs alone.
ALONE = cast(
    "tuple[BenchPart, ...]",
    (smoke, clients.LongPolls(), clients.RudeClients(), console, letters, orders, resume, shards, telemetry),
)

#: Where results are written.
DIRECTORY = ROOT / ".run" / "bench"

PAGE = ROOT / "bench" / "RESULTS.md"

#: Options of `all --long`, by part.
_LONG = {growth.NAME: ["--depth", "1000000", "--rounds", "3"], system.NAME: ["--load-test", "180"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out the command line.

    Args:
        argv: without the program; the process's own by default.

    Returns:
        The exit status: 1 when something could not be measured, or a bound of `smoke` is passed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(words)
    try:
        if options.part == "report":
            _report(Path(options.results), Path(options.page), options.title)
        elif options.part == "all":
            _all(parser, options)
        else:
            run(options.part, options, words)
    except BenchmarkFailed as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def run(part: BenchPart, options: argparse.Namespace, words: Sequence[str]) -> None:
    """Measure one part, print its tables and write its result.

    Args:
        part: which.
        options: of its parser.
        words: the command line, for the result.

    Raises:
        BenchmarkFailed: it could not be measured.
    """
    progress(f"{part.NAME}: {part.HELP}")
    began, before = dt.datetime.now(dt.UTC), machine.load()
    at = time.monotonic()
    measured = part.measure(options)
    result = PartResult(
        part=part.NAME,
        command=f"python -m bench {shlex.join(words)}",
        began=began.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - at, 1),
        load=(before, machine.load()),
        machine=measured.machine,
        rows=measured.rows,
        notes=measured.notes,
    )
    path = result.save(Path(options.out))
    sys.stdout.write(tables.figures(result))
    sys.stdout.flush()
    progress(f"{part.NAME}: {result.seconds:.0f} s, {path}")


def _all(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Every part, also when one fails."""
    failed = []
    for part in PARTS:
        words = [part.NAME, *(_LONG.get(part.NAME, []) if options.long else [])]
        try:
            run(part, parser.parse_args([*words, "--out", options.out]), words)
        except BenchmarkFailed as exc:
            failed.append(f"{part.NAME}: {exc}")
    if failed:
        raise BenchmarkFailed("\n".join(failed))


def _report(results: Path, target: Path, title: str) -> None:
    found = [PartResult.read(path) for path in sorted(results.glob("*.json"))]
    if not found:
        raise BenchmarkFailed(f"no results in {results}: python -m bench all")
    page.write(found, target, title)
    progress(str(target))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures on servers of its own, started on this machine and stopped afterwards. bench/README.md has more.",
    )
    commands = parser.add_subparsers(required=True, metavar="PART")
    for part in (*PARTS, *ALONE):
        command = commands.add_parser(part.NAME, help=part.HELP, description=part.HELP)
        _add_out(command)
        part.add_options(command)
        command.set_defaults(part=part)
    every = commands.add_parser("all", help=f"one after the other: {', '.join(part.NAME for part in PARTS)}")
    _add_out(every)
    every.add_argument("--long", action="store_true", help="1,000,000 waiting tasks, and 180 s of the load test")
    every.set_defaults(part="all")
    report = commands.add_parser("report", help="tables and plots from the results")
    report.add_argument("--results", default=str(DIRECTORY), help="directory of the results (%(default)s)")
    report.add_argument("--page", default=str(PAGE), help="the Markdown file; plots go beside it (%(default)s)")
    report.add_argument("--title", default="", help="which tree was measured, in a few words")
    report.set_defaults(part="report")
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default=str(DIRECTORY), help="directory of the results (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
