"""Where links lead: files and anchors of this checkout; other addresses are only listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tools.docs.pages import Page


def problems(pages: Sequence[Page], root: Path) -> Iterator[str]:
    """Links to files or anchors that are not there, and pages of ``docs/`` that no other page leads to.

    Args:
        pages: all pages.
        root: the checkout.
    """
    by_path = {page.path: page for page in pages}
    reached = {PurePosixPath("docs/index.md")}
    for page in pages:
        for target in filter(_is_ours, page.links):
            path, _, anchor = target.partition("#")
            file = _resolved(page.path, path)
            if file not in by_path and not (root / file).exists():
                yield f"{page.path}: the link {target} leads to no file"
            elif anchor and (file not in by_path or anchor not in by_path[file].anchors):
                yield f"{page.path}: the link {target} leads to no heading"
            elif file != page.path:
                reached.add(file)
    for page in pages:
        if page.path.parts[0] == "docs" and page.path not in reached:
            yield f"{page.path}: no page leads here"


def external(pages: Sequence[Page]) -> Mapping[str, list[str]]:
    """Addresses elsewhere, each with the pages that link to it. Nothing asks whether they answer.

    Args:
        pages: all pages.
    """
    found: dict[str, list[str]] = {}
    for page in pages:
        for target in page.links:
            if not _is_ours(target):
                found.setdefault(target, []).append(str(page.path))
    return found


def _is_ours(target: str) -> bool:
    return "://" not in target and not target.startswith("mailto:")


def _resolved(page: PurePosixPath, path: str) -> PurePosixPath:
    if not path:
        return page
    parts: list[str] = []
    for part in (*page.parent.parts, *PurePosixPath(path).parts):
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return PurePosixPath(*parts)
