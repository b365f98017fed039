"""Tables and ages for people. Pure, but for the terminal's width."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence

#: Columns between two cells.
_GAP = "  "

#: Characters below which a cut text is of no use: it then has a line of its own below its row.
LEAST = 24

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    cut: str | None = None,
    leave_out: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Rows below their heads, columns aligned.

    Args:
        heads: the columns' names.
        rows: a cell for each column.
        right: the columns that are aligned to the right: numbers.
        cut: the last column, when it is a text that a narrow terminal may cut; nothing else is ever cut.
        leave_out: columns that a narrow terminal lacks, the first one first.
        width: the terminal's columns; None: no limit.
    """
    lines = [tuple(heads), *(tuple(map(plain, row)) for row in rows)]
    for name in leave_out:
        if width is None or max(map(len, _aligned(lines, right))) <= width:
            break
        at = lines[0].index(name)
        lines = [line[:at] + line[at + 1 :] for line in lines]
    if cut is not None and width is not None:
        return _fitted(lines, right, width)
    return "\n".join(_aligned(lines, right))


def _aligned(lines: Sequence[tuple[str, ...]], right: Collection[str]) -> list[str]:
    heads = lines[0]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]

    def cell(head: str, text: str, width: int) -> str:
        return text.rjust(width) if head in right else text.ljust(width)

    return [_GAP.join(map(cell, heads, line, widths)).rstrip() for line in lines]


def _fitted(lines: Sequence[tuple[str, ...]], right: Collection[str], width: int) -> str:
    """The last column gets what the others leave, or a line of its own where that is too little."""
    others = _aligned([line[:-1] for line in lines], right)
    room = width - max(map(len, others)) - len(_GAP)
    if room >= LEAST:
        short = [(*line[:-1], shortened(line[-1], room)) for line in lines]
        return "\n".join(_aligned(short, right))
    below = [f"{_GAP}{shortened(line[-1], max(LEAST, width - len(_GAP)))}".rstrip() for line in lines]
    return "\n".join(text for pair in zip(others, below, strict=True) for text in pair if text)


def shortened(text: str, width: int) -> str:
    """A text with an ellipsis where it is cut."""
    line = plain(text)
    return line if len(line) <= width else f"{line[: width - 1]}…"


def plain(text: str) -> str:
    """A text on one line, as `visible`."""
    return visible(" ".join(text.split()))


def visible(line: str) -> str:
    """A line without what a terminal would obey: senders of messages and robots' vendors write some of it."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)


def terminal_width() -> int | None:
    """The columns of the terminal that the output goes to; None when it goes to a file or a pipe: a program cuts nothing."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        return None
    return shutil.get_terminal_size().columns


def age(seconds: float) -> str:
    """A duration in its two largest units: ``45s``, ``3m 20s``, ``2d 4h``."""
    left = max(0, int(seconds))
    for index, (unit, size) in enumerate(_UNITS):
        if left >= size or size == 1:
            whole, rest = divmod(left, size)
            finer = rest // _UNITS[index + 1][1] if index + 1 < len(_UNITS) else 0
            return f"{whole}{unit} {finer}{_UNITS[index + 1][0]}" if finer else f"{whole}{unit}"
    return "0s"
