"""Who imports whom, by syntax: also imports inside functions, but not those for type checkers only."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tools.source_tree import Module

Graph = Mapping[str, Collection[str]]
Arrow = tuple[str, str]


class _Imports(ast.NodeVisitor):
    """Collects the modules among ``known`` that one module imports."""

    def __init__(self, module: Module, known: frozenset[str]) -> None:
        self._package = module.package.split(".") if module.package else []
        self._known = known
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names if alias.name in self._known)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._base(node)
        for alias in node.names:
            full = f"{base}.{alias.name}" if base else alias.name
            self.found.update({full} & self._known or {base} & self._known)

    def visit_If(self, node: ast.If) -> None:
        children = node.orelse if _for_type_checkers(node.test) else [node.test, *node.body, *node.orelse]
        for child in children:
            self.visit(child)

    def _base(self, node: ast.ImportFrom) -> str:
        above = self._package[: len(self._package) - node.level + 1] if node.level else []
        return ".".join([*above, *filter(None, [node.module])])


def _for_type_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def imports(modules: Sequence[Module]) -> dict[str, set[str]]:
    """The own modules that each module imports, itself apart.

    Args:
        modules: all there are.
    """
    known = frozenset(module.name for module in modules)
    graph = {}
    for module in modules:
        visitor = _Imports(module, known)
        visitor.visit(module.tree)
        graph[module.name] = visitor.found - {module.name}
    return graph


def arrows(graph: Graph, place: Callable[[str], str | None]) -> set[Arrow]:
    """The distinct arrows between places.

    Args:
        graph: imports by module.
        place: gives a module's place; modules without one have no arrows.
    """
    pairs = {(place(module), place(target)) for module, targets in graph.items() for target in targets}
    return {(start, end) for start, end in pairs if start is not None and end is not None and start != end}


def grouped(nodes: Iterable[str], found: Iterable[Arrow]) -> dict[str, set[str]]:
    """The graph of a set of arrows.

    Args:
        nodes: every place, also those without arrows.
        found: its arrows.
    """
    graph: dict[str, set[str]] = {node: set() for node in nodes}
    for start, end in found:
        graph[start].add(end)
    return graph


def components(graph: Graph) -> list[frozenset[str]]:
    """The strongly connected components, each a set of nodes that reach one another.

    Args:
        graph: successors by node.
    """
    reach = {node: _reachable(graph, node) for node in graph}
    found = {frozenset({node, *(other for other in reach[node] if node in reach[other])}) for node in graph}
    return sorted(found, key=sorted)


def circles(graph: Graph) -> list[list[str]]:
    """The components of more than one node.

    Args:
        graph: successors by node.
    """
    return [sorted(component) for component in components(graph) if len(component) > 1]


def longest_chain(graph: Graph) -> list[str]:
    """The longest path in the condensed graph; a circle is one step of it, its names joined by ``=``.

    Args:
        graph: successors by node.
    """
    home = {node: "=".join(sorted(component)) for component in components(graph) for node in component}
    below = grouped(home.values(), arrows(graph, home.get))
    chains: dict[str, list[str]] = {}
    for node in below:
        _chain(node, below, chains)
    return max(chains.values(), key=len, default=[])


def _chain(node: str, below: Graph, chains: dict[str, list[str]]) -> list[str]:
    if node not in chains:
        tails = (_chain(each, below, chains) for each in sorted(below[node]))
        chains[node] = [node, *max(tails, key=len, default=[])]
    return chains[node]


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [*graph[start]]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += graph[node]
    return seen
