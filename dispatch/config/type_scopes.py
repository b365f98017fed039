"""Scopes that name task types: ``tasks:write:echo``, ``tasks:write:robot.*``. Pure.

The plain scope ``tasks:write`` covers every type. ``robot.*`` covers the types whose name begins with ``robot.``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

#: The scopes that may name types.
NAMING = ("tasks:write",)

#: Scopes that include another one.
_INCLUDES = {"tasks:read": "tasks:read-all"}

_TYPES = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*(\.\*)?")


def is_valid(scope: str) -> bool:
    """Whether a scope is one of `NAMING` with a type, or with a prefix of types."""
    plain, _, types = scope.rpartition(":")
    return plain in NAMING and _TYPES.fullmatch(types) is not None


def permits(granted: Collection[str], scope: str) -> bool:
    """Whether an operation is permitted at all, for some type at least.

    Args:
        granted: a principal's scopes.
        scope: the operation's.
    """
    if scope in granted or _INCLUDES.get(scope) in granted:
        return True
    return scope in NAMING and any(each.startswith(f"{scope}:") for each in granted)


def permits_type(granted: Collection[str], scope: str, type_name: str) -> bool:
    """Whether an operation is permitted for a task type.

    Args:
        granted: a principal's scopes.
        scope: the operation's, one of `NAMING`.
        type_name: the task type's name.
    """
    return scope in granted or any(
        each.startswith(f"{scope}:") and _covers(each[len(scope) + 1 :], type_name) for each in granted
    )


def _covers(types: str, name: str) -> bool:
    return name.startswith(types[:-1]) if types.endswith(".*") else name == types
