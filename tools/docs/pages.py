"""The pages, and what they are made of: blocks, headings, links, spans of code. Pure but for reading the files."""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

#: Beside everything below ``docs/``.
ROOT_PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "tests/README.md",
    "tests/system/postman/README.md",
    "examples/robot_simulator/README.md",
    "clients/python/README.md",
    "clients/typescript/README.md",
)

SHELLS = frozenset({"sh", "console"})
DATA = frozenset({"json", "yaml", "ini"})
FIGURE = "text"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<language>[a-z]*)$")
_MARK = re.compile(r"^ *<!-- (?P<mark>output|not run)(?:: (?P<reason>.+))? -->$")
_HEADING = re.compile(r"^#+ (?P<title>.+?) *$")
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)\)")
_SPAN = re.compile(r"`([^`]+)`")
_PATH = re.compile(r"^# (?P<path>[\w./-]+\.py)$")


class Treatment(enum.StrEnum):
    """What the documentation's tests do with a block."""

    RUN = "run"  #: its commands are run on a stack
    WRITTEN = "written"  #: a file of Python: linted, written to its path, and imported there
    COMPARED = "compared"  #: an output
    CHECKED = "checked"  #: marked as not run, with the reason
    PARSED = "parsed"  #: data
    FIGURE = "figure"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: PurePosixPath
    line: int  #: of its first fence
    language: str
    text: str
    mark: str | None = None  #: ``output`` or ``not run``
    reason: str | None = None

    @property
    def place(self) -> str:
        """Page and line, as editors take them."""
        return f"{self.page}:{self.line}"

    @property
    def path(self) -> str | None:
        """Where a block of Python belongs."""
        found = _PATH.match(self.text.partition("\n")[0]) if self.language == "python" else None
        return found["path"] if found else None

    @property
    def treatment(self) -> Treatment:
        """What is done with it."""
        if self.mark == "output":
            return Treatment.COMPARED
        if self.mark == "not run":
            return Treatment.CHECKED
        if self.language in SHELLS:
            return Treatment.RUN
        if self.language == "python":
            return Treatment.WRITTEN
        return Treatment.PARSED if self.language in DATA else Treatment.FIGURE

    @property
    def script(self) -> str:
        """The commands alone, as a shell takes them."""
        return self.text if self.language == "sh" else "".join(command for command, _ in dialogue(self.text))


@dataclasses.dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: PurePosixPath  #: relative to the checkout
    text: str

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks, in order."""
        return list(self._blocks())

    @functools.cached_property
    def prose(self) -> str:
        """The page without the contents of its blocks, line by line as it was."""
        lines = self.text.splitlines()
        for block in self.blocks:
            lines[block.line : block.line + block.text.count("\n")] = [""] * block.text.count("\n")
        return "\n".join(lines)

    @property
    def spans(self) -> list[str]:
        """What stands between backticks in the prose, line breaks as blanks."""
        return [
            re.sub(r"\s+", " ", span)
            for span in _SPAN.findall(re.sub(r"^ *```.*$", "", self.prose, flags=re.MULTILINE))
        ]

    @property
    def links(self) -> list[str]:
        """The targets of its links."""
        return [found["target"] for found in _LINK.finditer(re.sub(r"`[^`\n]+`", "", self.prose))]

    @functools.cached_property
    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub makes them."""
        seen: dict[str, int] = {}
        anchors = set()
        for line in self.prose.splitlines():
            if found := _HEADING.match(line):
                slug = anchor(found["title"])
                count = seen[slug] = seen.get(slug, -1) + 1
                anchors.add(f"{slug}-{count}" if count else slug)
        return anchors

    def _blocks(self) -> Iterator[Block]:
        lines = self.text.splitlines()
        number = 0
        while number < len(lines):
            opened = _FENCE.match(lines[number])
            if opened is None:
                number += 1
                continue
            end = next(at for at in range(number + 1, len(lines)) if lines[at] == opened["indent"] + opened["ticks"])
            content = "".join(f"{line.removeprefix(opened['indent'])}\n" for line in lines[number + 1 : end])
            marked = _MARK.match(_before(lines, number))
            mark, reason = (marked["mark"], marked["reason"]) if marked else (None, None)
            yield Block(self.path, number + 1, opened["language"], content, mark, reason)
            number = end + 1


def every(root: Path) -> list[Page]:
    """All pages of a checkout, the ones outside ``docs/`` first.

    Args:
        root: the checkout.
    """
    docs = sorted(path.relative_to(root).as_posix() for path in (root / "docs").rglob("*.md"))
    return [Page(PurePosixPath(path), (root / path).read_text("utf-8")) for path in (*ROOT_PAGES, *docs)]


def anchor(title: str) -> str:
    """A heading's anchor, as GitHub makes it: lower case, punctuation dropped, a hyphen for each blank."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def dialogue(text: str) -> list[tuple[str, str]]:
    """Commands and what each prints, of a ``console`` block.

    Args:
        text: lines of commands begin with ``$ ``, lines that continue one with ``> ``.
    """
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:] + "\n", ""))
        elif line.startswith("> ") and pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0] + line[2:] + "\n", "")
        elif pairs:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] + line + "\n")
    return pairs


def _before(lines: Sequence[str], number: int) -> str:
    return next((line for line in reversed(lines[:number]) if line.strip()), "")
