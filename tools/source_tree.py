"""The product's Python modules in a checkout: parsed, never imported.

A folder is a directory with modules. A room is a folder too, but each module that lies directly in ``dispatch/`` and
each root file is a room of its own: there a reader finds no folder that groups them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

#: The product; tests, tools, benchmarks and deployment files do not belong to it.
FOLDERS = ("dispatch", "tasks", "launcher", "examples")
ROOT_FILES = ("app.py", "celery_app.py", "topology.py", "flowerconfig.py")

#: Folders without a room of their own: each module in them is one.
_OPEN = frozenset({".", "dispatch"})


@dataclasses.dataclass(frozen=True)
class Module:
    """One Python file."""

    path: PurePosixPath  #: relative to the checkout
    text: str

    @property
    def is_package(self) -> bool:
        """Whether the file is an ``__init__``; those count in arrows, not as modules of a folder."""
        return self.path.name == "__init__.py"

    @property
    def name(self) -> str:
        """Its dotted name."""
        return ".".join((self.path.parent if self.is_package else self.path.with_suffix("")).parts)

    @property
    def package(self) -> str:
        """The dotted name that its relative imports start from."""
        return ".".join(self.path.parent.parts)

    @property
    def folder(self) -> str:
        """Its directory; ``.`` is the checkout."""
        return self.path.parent.as_posix()

    @property
    def room(self) -> str | None:
        """Its room; None for the ``__init__`` of a folder that is no room."""
        if self.folder not in _OPEN:
            return self.package
        return None if self.is_package else self.name

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text, str(self.path))


def modules(root: Path) -> list[Module]:
    """Every module of the product.

    Args:
        root: a checkout.

    Returns:
        The modules, sorted by path.
    """
    return _parsed(root, _files(root))


def test_modules(root: Path) -> list[Module]:
    """Every module of the tests, sorted by path.

    Args:
        root: a checkout.
    """
    return _parsed(root, (root / "tests").rglob("*.py"))


def lua_scripts(root: Path) -> dict[PurePosixPath, str]:
    """Every Lua script of the product, by its path in the checkout.

    Args:
        root: a checkout.
    """
    found = sorted((root / "dispatch").rglob("*.lua"))
    return {PurePosixPath(path.relative_to(root)): path.read_text("utf-8") for path in found}


def is_product(path: PurePosixPath) -> bool:
    """Whether a path, relative to a checkout, belongs to what is measured."""
    return path.parts[0] in FOLDERS or path.as_posix() in ROOT_FILES


def _parsed(root: Path, paths: Iterable[Path]) -> list[Module]:
    return [Module(PurePosixPath(path.relative_to(root)), path.read_text("utf-8")) for path in sorted(paths)]


def _files(root: Path) -> Iterator[Path]:
    yield from (root / name for name in ROOT_FILES if (root / name).exists())
    for folder in FOLDERS:
        yield from (root / folder).rglob("*.py")
