"""Figures of a checkout's layout: ``python -m tools.house [ROOT] [--json]``.

Reads the source of any checkout, whatever its folders, and runs none of it. `source_tree` defines product, folder and
room.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dispatch.cli import pipes
from tools import definitions, import_graph, prose, source_tree
from tools.definitions import Lengths
from tools.prose import Prose
from tools.source_tree import Module


@dataclasses.dataclass(frozen=True)
class Folders:
    """Modules by folder, without ``__init__``."""

    count: int
    modules: int
    mean: float
    most: int
    largest: str


@dataclasses.dataclass(frozen=True)
class Imports:
    """Arrows between modules, folders and rooms."""

    mean: float  #: own modules that a module imports
    folder_arrows: int
    rooms: int
    room_arrows: int
    chain: list[str]  #: the longest chain of rooms; its length is the number of floors
    circles: list[list[str]]  #: modules that import one another
    room_circles: list[list[str]]


@dataclasses.dataclass(frozen=True)
class House:
    """Every figure."""

    folders: Folders
    imports: Imports
    module_lines: Lengths
    function_lines: Lengths
    repeated_classes: dict[str, int]
    settings: int
    prose: Prose  #: of `dispatch`
    tests_prose: Prose


def measure(root: Path) -> House:
    """Take every figure.

    Args:
        root: a checkout.

    Raises:
        ValueError: it has no modules of the product.
    """
    every = source_tree.modules(root)
    modules = [module for module in every if not module.is_package]
    if not modules:
        raise ValueError(f"{root} is no checkout: it has no modules in {', '.join(source_tree.FOLDERS)}")
    return House(
        folders=_folders(modules),
        imports=_imports(every),
        module_lines=definitions.lengths(definitions.module_lengths(modules)),
        function_lines=definitions.lengths(definitions.function_lengths(every)),
        repeated_classes=definitions.repeated_classes(every),
        settings=definitions.settings(every),
        prose=prose.measure(
            [module for module in every if module.path.parts[0] == "dispatch"], source_tree.lua_scripts(root).values()
        ),
        tests_prose=prose.measure(source_tree.test_modules(root)),
    )


def _folders(modules: Sequence[Module]) -> Folders:
    sizes = collections.Counter(module.folder for module in modules)
    ((largest, most),) = sizes.most_common(1)
    return Folders(len(sizes), len(modules), len(modules) / len(sizes), most, largest)


def _imports(modules: Sequence[Module]) -> Imports:
    graph = import_graph.imports(modules)
    folder_of = {module.name: module.folder for module in modules}
    room_of = {module.name: module.room for module in modules}
    room_arrows = import_graph.arrows(graph, room_of.get)
    rooms = import_graph.grouped(filter(None, room_of.values()), room_arrows)
    return Imports(
        mean=statistics.mean(len(graph[module.name]) for module in modules if not module.is_package),
        folder_arrows=len(import_graph.arrows(graph, folder_of.get)),
        rooms=len(rooms),
        room_arrows=len(room_arrows),
        chain=import_graph.longest_chain(rooms),
        circles=import_graph.circles(graph),
        room_circles=import_graph.circles(rooms),
    )


def as_json(house: House) -> dict[str, Any]:
    """The figures as JSON has them, the derived ones included."""
    figures = dataclasses.asdict(house)
    figures["imports"]["floors"] = len(house.imports.chain)
    figures["prose"]["per_thousand"] = house.prose.per_thousand
    figures["tests_prose"]["per_thousand"] = house.tests_prose.per_thousand
    return figures


def table(house: House) -> Iterator[tuple[str, str, str]]:
    """The figures as rows: name, value, details."""
    folders, imports = house.folders, house.imports
    yield "modules", str(folders.modules), f"in {folders.count} folders"
    yield "modules a folder, mean", f"{folders.mean:.1f}", ""
    yield "modules a folder, most", str(folders.most), folders.largest
    yield "import arrows between folders", str(imports.folder_arrows), ""
    yield "rooms", str(imports.rooms), ""
    yield "import arrows between rooms", str(imports.room_arrows), ""
    yield "floors: longest chain of rooms", str(len(imports.chain)), " > ".join(imports.chain)
    yield "import circles of modules", str(len(imports.circles)), _listed(imports.circles)
    yield "import circles of rooms", str(len(imports.room_circles)), _listed(imports.room_circles)
    yield "own imports a module, mean", f"{imports.mean:.1f}", ""
    yield from _lengths("module lines", house.module_lines)
    yield from _lengths("function lines, no docstring", house.function_lines)
    yield "class names used twice or more", str(len(house.repeated_classes)), _counted(house.repeated_classes)
    yield "settings", str(house.settings), ""
    yield from _prose("conversational words per 1,000", house.prose)
    yield from _prose("conversational words per 1,000, tests", house.tests_prose)


def _lengths(name: str, lengths: Lengths) -> Iterator[tuple[str, str, str]]:
    yield f"{name}, median", f"{lengths.median:g}", ""
    yield f"{name}, p90", str(lengths.p90), ""
    yield f"{name}, most", str(lengths.most), lengths.longest


def _prose(name: str, found: Prose) -> Iterator[tuple[str, str, str]]:
    yield name, f"{found.per_thousand:.1f}", _counted(found.counts)


def _listed(circles: Sequence[Sequence[str]]) -> str:
    return "; ".join(" = ".join(circle) for circle in circles)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} \N{MULTIPLICATION SIGN}{count}" for name, count in counts.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures.

    Args:
        argv: the command line without the program; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.house", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(), help="a checkout; the current directory by default"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    house = measure(args.root)
    if args.json:
        print(json.dumps(as_json(house), indent=1))
    else:
        print("\n".join(f"{name:<38}{value:>7}  {details}".rstrip() for name, value, details in table(house)))


if __name__ == "__main__":
    with pipes.quiet():
        main()
