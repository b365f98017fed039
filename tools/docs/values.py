"""Values of settings that a page shows are values that a process takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from dispatch.config import settings
from dispatch.errors import ConfigurationError
from tools.docs.pages import SHELLS, Block

_ASSIGNMENT = re.compile(r"(DISPATCH_[A-Z0-9_]+)=(.*)", re.DOTALL)

#: What a page leaves to its reader, and what a checkout does not have.
_OPEN, _FILLED = "…", "filled-in"
_ABSENT = re.compile(r"no such file", re.IGNORECASE)


def problems(blocks: Sequence[Block]) -> Iterator[str]:
    """What the settings refuse of each block's values, all of them together, as a process would have them.

    Args:
        blocks: of all pages.
    """
    for block in blocks:
        if block.language in SHELLS and (values := _values(block.script)):
            try:
                settings.load(values)
            except ConfigurationError as exc:
                for problem in str(exc).splitlines():
                    if not _ABSENT.search(problem):
                        yield f"{block.place}: {problem}"


def _values(script: str) -> dict[str, str]:
    """Assignments of the script without those that a command computes."""
    try:
        words = shlex.split(script, comments=True)
    except ValueError:  # a here-document with an apostrophe, say
        return {}
    found = (_ASSIGNMENT.fullmatch(word) for word in words)
    return {each[1]: each[2].replace(_OPEN, _FILLED) for each in found if each and "$" not in each[2]}
