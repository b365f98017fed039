"""The tables of the results, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.harness.results import PartResult, ResultRow
from bench.harness.statistics import Spread
from bench.report.goals import Assessment


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table.

    Args:
        head: the columns' names; the first two columns are text, the others figures.
        rows: a cell for each column.
    """
    rule = ["---" if number < 2 else "---:" for number in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)) + "\n"


def number(value: float) -> str:
    """Three significant digits at least, thousands with a comma."""
    size = abs(value)
    if size >= 100 or value == round(value, 0) == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The median, with the range of several rounds."""
    found = Spread.of(values)
    median = number(found.median)
    return median if found.count == 1 else f"{median} ({number(found.low)}–{number(found.high)})"


def figures(result: PartResult) -> str:
    """The tables of a part: one for all rows with the same first figure, in which each case's variants follow one another."""
    groups: dict[str, list[ResultRow]] = {}
    for row in result.rows:
        groups.setdefault(next(iter(row.figures)), []).append(row)
    return "\n".join(map(_group, groups.values()))


def _group(rows: Sequence[ResultRow]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    cells = []
    for row in rows:
        rounds = str(max(len(values) for values in row.figures.values()))
        cells.append([row.case, row.variant, rounds, *(_cell(row, name) for name in names)])
    return table(["case", "variant", "rounds", *names], cells)


def _cell(row: ResultRow, name: str) -> str:
    return spread(row.figures[name]) if name in row.figures else ""


def goals(verdicts: Sequence[Assessment]) -> str:
    """The table of what is asked and what was measured."""
    head = ["case", "figure", "ours", "beside", "measured", "ratio (by round)", "per CPU", "floor", "goal", "met"]
    return table(head, map(_verdict, verdicts))


def _verdict(verdict: Assessment) -> list[str]:
    goal, row, peer = verdict.goal, verdict.row, verdict.peer
    sign = "≤" if goal.at_most else "≥"
    times = " ×" if peer else ""
    name = row.case if row.variant == "ours" else f"{row.case}; {row.variant}"
    return [
        name,
        goal.figure,
        spread(row.figures[goal.figure]),
        peer.variant if peer else "",
        spread(peer.figures[goal.figure]) if peer else "",
        _ratio(verdict.found) if peer else "",
        _ratio(verdict.per_cpu) if verdict.per_cpu else "",
        "" if goal.floor is None else f"{sign} {number(goal.floor)}{times}",
        "" if goal.goal is None else f"{sign} {number(goal.goal)}{times}",
        "yes" if verdict.met else "**no**",
    ]


def _ratio(found: Spread) -> str:
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def machine(results: Mapping[str, PartResult]) -> str:
    """The machine and versions, of the latest part, and each part's command and time."""
    last = max(results.values(), key=lambda result: result.began)
    about = table(["what", "which"], [[name, text] for name, text in last.machine.items()])
    runs = [
        [
            result.part,
            f"`{result.command}`",
            f"{result.seconds:.0f}",
            f"{result.load[0]:.1f} → {result.load[1]:.1f}",
            result.began,
        ]
        for result in results.values()
    ]
    return about + "\n" + table(["part", "command", "s", "load before → after", "began"], runs)
