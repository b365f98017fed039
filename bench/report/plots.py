"""Bar and line charts as SVG, without a library."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.harness.statistics import Spread

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 300, 90, 46
_BAR, _GAP, _GROUP = 15, 3, 12
_COLOURS = ("#2f6f9f", "#d08a3c", "#7a9a54", "#8b6bb0")
_FONT = "font-family='system-ui, sans-serif' font-size='12' fill='#333'"


@dataclasses.dataclass(frozen=True)
class Chart:
    """What a plot shows."""

    title: str
    unit: str
    bars: Mapping[str, Mapping[str, Sequence[float]]]  #: case → variant → a value a round


def bars(chart: Chart) -> str:
    """Horizontal bars of the medians, with a line from the least round to the greatest; an SVG document."""
    spreads = {case: {name: Spread.of(found) for name, found in each.items()} for case, each in chart.bars.items()}
    most = max((one.high for each in spreads.values() for one in each.values()), default=1) or 1
    names = list(dict.fromkeys(name for each in spreads.values() for name in each))
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts, y = [_text(8, 18, chart.title, "font-weight='600'"), *_legend(names)], _TOP
    for case, each in spreads.items():
        parts.append(_text(_LEFT - 8, y + _BAR * len(each) / 2 + 4, case, "text-anchor='end'"))
        for name, one in each.items():
            parts += _bar(y, one, scale, _COLOURS[names.index(name) % len(_COLOURS)], chart.unit)
            y += _BAR + _GAP
        y += _GROUP
    return _document(y, parts)


def line(title: str, labels: tuple[str, str], points: Sequence[tuple[float, float]], limit: float) -> str:
    """A curve on a logarithmic scale with a limit; an SVG document.

    Args:
        title: above it.
        labels: of the two axes.
        points: in the order of x; y above 0.
        limit: of y, drawn as a line.
    """
    height = 320
    least, most = min(x for x, _ in points), max(x for x, _ in points)
    low = math.log10(min(y for _, y in points) / 1.5)
    high = math.log10(max(limit, *(y for _, y in points)) * 1.5)

    def place(x: float, y: float) -> tuple[float, float]:
        across = 70 + (x - least) / ((most - least) or 1) * (_WIDTH - 110)
        return across, 40 + (high - math.log10(y)) / (high - low) * (height - 90)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    level = place(least, limit)[1]
    parts = [
        _text(8, 18, title, "font-weight='600'"),
        f"<line x1='70' x2='{_WIDTH - 40}' y1='{level:.1f}' y2='{level:.1f}' stroke='#c33' stroke-dasharray='4 3'/>",
        _text(_WIDTH - 36, level + 4, f"{limit:g}"),
        f"<polyline points='{path}' fill='none' stroke='{_COLOURS[0]}' stroke-width='2'/>",
        _text(_WIDTH / 2, height - 8, labels[0], "text-anchor='middle'"),
        _text(8, 36, labels[1]),
    ]
    for x, y in points:
        across, down = place(x, y)
        parts.append(f"<circle cx='{across:.1f}' cy='{down:.1f}' r='3' fill='{_COLOURS[0]}'/>")
        parts.append(_text(across, down - 8, f"{y:.0f}", "text-anchor='middle'"))
        parts.append(_text(across, height - 26, f"{x:g}", "text-anchor='middle'"))
    return _document(height, parts)


def _bar(y: float, one: Spread, scale: float, colour: str, unit: str) -> list[str]:
    middle = y + _BAR / 2
    low, high = _LEFT + one.low * scale, _LEFT + one.high * scale
    return [
        f"<rect x='{_LEFT}' y='{y}' width='{one.median * scale:.1f}' height='{_BAR}' fill='{colour}'/>",
        f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{middle}' y2='{middle}' stroke='#222'/>",
        _text(high + 5, middle + 4, f"{one.median:,.0f} {unit}" if one.median >= 20 else f"{one.median:.1f} {unit}"),
    ]


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    x = float(_LEFT)
    for number, name in enumerate(names):
        parts.append(f"<rect x='{x}' y='26' width='10' height='10' fill='{_COLOURS[number % len(_COLOURS)]}'/>")
        parts.append(_text(x + 15, 35, name))
        x += 35 + 6.6 * len(name)
    return parts


def _text(x: float, y: float, text: str, extra: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} {extra}>{escape(text)}</text>"


def _document(height: float, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height:.0f}' width='{_WIDTH}' height='{height:.0f}'>"
    return "\n".join([head, f"<rect width='{_WIDTH}' height='{height:.0f}' fill='#fff'/>", *parts, "</svg>"]) + "\n"
