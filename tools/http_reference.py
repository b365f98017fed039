"""The generated parts of ``docs/reference/http-api.md``: ``python -m tools.http_reference FILE`` updates them.

A part is between ``<!-- NAME -->`` and ``<!-- /NAME -->``; a test compares the committed file with it.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from dispatch.gateway.application import operations
from dispatch.gateway.contract import openapi
from dispatch.gateway.http import problems
from dispatch.gateway.http.operations import Operation


def routes() -> str:
    """The table of routes."""
    rows = [
        (
            f"`{contract.method} {contract.path}`",
            contract.summary,
            " or ".join(f"`{scope}`" for scope in (contract.scope, contract.or_scope) if scope) or "none",
            " ".join(str(response.status) for response in contract.responses),
            _errors(contract),
        )
        for contract in operations()
    ]
    return _table(("route", "what", "scope", "success", "errors"), rows)


def slugs() -> str:
    """The table of problem types."""
    rows = [(f"`{kind.slug}`", str(kind.status), kind.meaning, kind.remedy) for kind in problems.KINDS.values()]
    return _table(("slug", "status", "what happened", "what to do"), rows)


def render(text: str) -> str:
    """A document with its generated parts updated.

    Args:
        text: the document.
    """
    for name, part in (("routes", routes()), ("problems", slugs())):
        head, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        text = f"{head}{begin}{part}\n{end}{tail}"
    return text


def _errors(contract: Operation) -> str:
    return " ".join(dict.fromkeys(str(problems.KINDS[slug].status) for slug in openapi.slugs(contract)))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def main() -> None:
    """Update the file named on the command line."""
    path = pathlib.Path(sys.argv[1])
    path.write_text(render(path.read_text()))


if __name__ == "__main__":
    main()
