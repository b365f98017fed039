"""``bench/RESULTS.md`` and its plots, from the parts' results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness.results import PartResult
from bench.harness.statistics import Spread
from bench.parts import failures, gateway, growth, latency, system, worker
from bench.report import plots, tables
from bench.report.goals import verdicts
from bench.report.plots import Chart

#: Parts in the order of the page, and how each is introduced.
_SECTIONS = {
    gateway.NAME: """\
Beside FastAPI with uvicorn (uvloop, httptools), aio-pika and redis-py: mandatory, confirmed publishes to a quorum queue, one SET a
task. What it lacks: quotas, the depth guard, a record that follows the task, outcomes in doubt, access log, metrics. `wrk` on
loopback, one thread; "other load" is the share of the machine that belongs to none of these programs.""",
    worker.NAME: """\
Queues are filled first; each turn starts its worker and measures between a tenth and nine tenths of the tasks. All: two processes,
quorum queue, 20 deliveries in flight for each, late acks, the same payload. What the others lack: both run a redelivered task
again (at least once), have no record before the result, no leases, no dead letters with a reason.""",
    latency.NAME: """\
Each task is submitted by HTTP and followed by a long poll. Ours: default settings. Beside it: dramatiq behind a Flask endpoint
(gunicorn, 2 × 16 threads) whose long poll blocks on the result in Redis. CPU is that of one task, with its HTTP requests.""",
    system.NAME: """\
One gateway process (two halve what one's loop brings together), a worker at `--autoscale=8,2`, RabbitMQ, Redis and the client share
the machine. A rate is sustained when all POSTs are accepted, their p99, from the time at which each was due, is within the limit, and
97 % of the tasks have succeeded a second after their POST, when each one's status is read; a rate that fails is tried once more. The
load test reads none.""",
    growth.NAME: """\
Two pairs of servers, one with an empty queue and one with a long one, take turns. The worker's memory is that of all its processes
(PSS) after its pool has grown.""",
    failures.NAME: """\
The ladder is compressed; each task fails in each attempt. Dead letters a second include the POSTs, on the same cores.""",
}

_HEAD = """\
# Results

Made by `python -m bench report` from the results of `make bench`; [README.md](README.md) has how to run and read it. Medians, with the
least and the greatest round. Compare rows of one run only: the same code costs up to 1.6 times as much minutes later on a shared
machine. Differences below a fifth are noise unless the ranges are apart. Ratios are medians of the rounds' ratios;
"per CPU" is the same for the CPU time of an operation, of all programs but the client (above 1: ours does more with the same), which other
load changes less.
"""


def write(results: Sequence[PartResult], page: Path, title: str = "") -> None:
    """Write the page and, beside it, its plots.

    Args:
        results: of the parts that were measured.
        page: the Markdown file; plots go into ``plots/`` next to it.
        title: which tree it is, for the first line below the head.
    """
    by_part = {result.part: result for part in _SECTIONS for result in results if result.part == part}
    drawn = _plots(by_part)
    (page.parent / "plots").mkdir(exist_ok=True)
    for name, text in drawn.items():
        (page.parent / "plots" / f"{name}.svg").write_text(text)
    parts = [_HEAD + (f"\n**{title}**\n" if title else ""), "## Machine and commands\n\n" + tables.machine(by_part)]
    parts.append("## What is asked, and what was measured\n\n" + tables.goals(verdicts(by_part)))
    parts += [_section(part, result, drawn) for part, result in by_part.items()]
    page.write_text("\n".join(parts))


def _section(part: str, result: PartResult, drawn: Mapping[str, str]) -> str:
    pictures = "".join(f"![{name}](plots/{name}.svg)\n" for name in drawn if name.startswith(part))
    notes = "".join(f"- {note}\n" for note in result.notes)
    texts = [f"## {part}\n", _SECTIONS[part] + "\n", pictures, tables.figures(result), notes]
    return "\n".join(text for text in texts if text)


def _plots(results: Mapping[str, PartResult]) -> dict[str, str]:
    wanted = [
        (gateway.NAME, "requests/s", "Requests a second"),
        (worker.NAME, "tasks/s", "Tasks a second, two children"),
        (worker.NAME, "worker CPU µs", "CPU of the worker for one task"),
        (latency.NAME, "SUCCESS p50 ms", "From the POST to SUCCESS, p50"),
        (latency.NAME, "SUCCESS p99 ms", "From the POST to SUCCESS, p99"),
    ]
    drawn = {}
    for part, figure, title in wanted:
        if part in results and (found := _bars(results[part], figure)):
            name = f"{part}-{figure.split()[0].split('/')[0].lower()}{'-p99' if 'p99' in figure else ''}"
            drawn[name] = plots.bars(Chart(title, _unit(figure), found))
    if system.NAME in results and (curve := _curve(results[system.NAME])):
        drawn["system-p99"] = plots.line(
            "p99 of the POST at rising rates", ("tasks a second", "ms"), curve, system.LIMIT_MS
        )
    return drawn


def _unit(figure: str) -> str:
    last = figure.rsplit(maxsplit=1)[-1]
    return "/s" if last.endswith("/s") else last


def _bars(result: PartResult, figure: str) -> dict[str, dict[str, Sequence[float]]]:
    found: dict[str, dict[str, Sequence[float]]] = {}
    for row in result.rows:
        if figure in row.figures:
            found.setdefault(row.case, {})[row.variant] = row.figures[figure]
    return found


def _curve(result: PartResult) -> list[tuple[float, float]]:
    """The medians of the climbs' rates."""
    rates = [row for row in result.rows if row.case.endswith(system.RATE)]
    return [(float(row.case.removesuffix(system.RATE)), Spread.of(row.figures["POST p99 ms"]).median) for row in rates]
