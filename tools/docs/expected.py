"""Whether an output is the one that a page shows. Pure.

``…`` is any text or none, ``019a…`` any task id; a line of ``…`` alone is any lines. Blanks around these and around punctuation, and
how many there are, make no difference, so that JSON may be shown as it reads best.
"""

from __future__ import annotations

import re

#: A task's id, as the gateway makes them (UUID version 7).
TASK_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

#: What stands for a task id on a page.
SOME_ID = "019a…"

_ANY = "…"


def is_shown(expected: str, output: str, *, gaps: bool = False) -> bool:
    """Compare.

    Args:
        expected: what the page shows.
        output: what the commands printed.
        gaps: whether there may be lines in between that the page does not show.
    """
    lines = [line for line in map(_even, expected.splitlines()) if line]
    between = r"(?:[^\n]*\n)*?" if gaps else ""
    pattern = between + "".join(_line(line) + between for line in lines)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in map(_even, output.splitlines()) if line)) is not None


def _line(line: str) -> str:
    if line == _ANY:
        return r"(?:[^\n]*\n)*?"
    parts = (_with_gaps(part) for part in line.split(SOME_ID))
    return TASK_ID.pattern.join(parts) + r"\n"


def _with_gaps(part: str) -> str:
    return r"[^\n]*?".join(map(re.escape, re.split(rf" ?{_ANY} ?", part)))


def _even(line: str) -> str:
    return re.sub(r" ?([{}\[\],:]) ?", r"\1", re.sub(r"\s+", " ", line)).strip()
