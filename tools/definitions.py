"""What modules define: how long functions are, which class names come twice, how many settings there are."""

from __future__ import annotations

import ast
import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tools.source_tree import Module


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Lengths in lines."""

    median: float
    p90: int
    most: int
    longest: str  #: the name of the longest


def lengths(by_name: Mapping[str, int]) -> Lengths:
    """Sum up lengths.

    Args:
        by_name: lines by name; not empty.
    """
    values = sorted(by_name.values())
    longest = max(by_name, key=lambda name: by_name[name])
    p90 = values[math.ceil(0.9 * len(values)) - 1]
    return Lengths(statistics.median(values), p90, by_name[longest], longest)


def module_lengths(modules: Iterable[Module]) -> dict[str, int]:
    """Lines of each module, with comments and blank lines.

    Args:
        modules: the modules.
    """
    return {module.name: len(module.text.splitlines()) for module in modules}


def function_lengths(modules: Iterable[Module]) -> dict[str, int]:
    """Lines of each function's body after its docstring: the code that a reader follows.

    Args:
        modules: where they are defined; functions inside functions count themselves, too.
    """
    return {
        f"{module.name}:{name}": _body_lines(node) for module in modules for name, node in _functions(module.tree, "")
    }


def repeated_classes(modules: Iterable[Module]) -> dict[str, int]:
    """The class names that are defined more than once, and how often.

    Args:
        modules: where they may be defined.
    """
    nodes = (node for module in modules for node in ast.walk(module.tree))
    seen = collections.Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    return {name: count for name, count in sorted(seen.items(), key=lambda item: (-item[1], item[0])) if count > 1}


def settings(modules: Iterable[Module]) -> int:
    """The number of fields with a default in the classes ``…Settings`` of ``settings`` modules and ``dispatch/config``.

    Args:
        modules: the modules.
    """
    nodes = (node for module in modules if _holds_settings(module) for node in ast.walk(module.tree))
    classes = (node for node in nodes if isinstance(node, ast.ClassDef) and node.name.endswith("Settings"))
    return sum(isinstance(each, ast.AnnAssign) and each.value is not None for node in classes for each in node.body)


def _holds_settings(module: Module) -> bool:
    in_dispatch = module.path.parts[0] == "dispatch"
    return in_dispatch and (module.path.name == "settings.py" or module.folder.startswith("dispatch/config"))


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        name = f"{prefix}{getattr(child, 'name', '')}"
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{name}@{child.lineno}", child
        named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield from _functions(child, f"{name}." if named else prefix)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body: Sequence[ast.stmt] = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
