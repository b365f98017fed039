"""The text of ``docs/reference/settings.md``: ``python -m tools.settings_reference > docs/reference/settings.md``."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import SecretStr

from dispatch.cli import pipes
from dispatch.config.settings import GROUPS, PREFIX

_INTRODUCTION = """\
# Settings

Generated from `dispatch/config/groups/`; a test compares the two.

Each is an environment variable. An unknown or misspelt `DISPATCH_*` is refused at start.
"""


def reference() -> str:
    """The page: a table for each group, in the order of `GROUPS`."""
    seen: set[str] = set()
    lines = [_INTRODUCTION]
    for group in GROUPS:
        title = (group.__doc__ or "").splitlines()[0]
        lines += [f"## {title.rstrip('.')}", "", "| variable | default | meaning |", "| --- | --- | --- |"]
        fields = {name: field for name, field in group.model_fields.items() if name not in seen}
        lines += [
            f"| `{PREFIX}{name.upper()}` | {_shown(field.default)} | {field.description} |"
            for name, field in fields.items()
        ]
        lines.append("")
        seen.update(fields)
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return f"`{default}`" if default not in (None, "") else "-"


if __name__ == "__main__":
    with pipes.quiet():
        sys.stdout.write(reference())
