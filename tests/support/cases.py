"""Many cases in one test, whose failure lists every case that fails."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def each(
    names: str | tuple[str, ...], cases: Iterable[Any], ids: Iterable[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``pytest.mark.parametrize`` in one test: for tables of data whose cases leave no state behind.

    Args:
        names: the arguments that a case gives; other arguments of the test are fixtures, shared by all cases.
        cases: a value each, or a tuple where there are several names.
        ids: the cases' names in the failure; by default their values.

    Returns:
        The decorator.
    """
    given = names if isinstance(names, tuple) else (names,)
    table = [dict(zip(given, case if isinstance(names, tuple) else (case,), strict=True)) for case in cases]
    labels = list(ids) or [", ".join(f"{name}={value!r:.200}" for name, value in row.items()) for row in table]
    if not table or len(labels) != len(table):
        raise ValueError(f"{len(labels)} ids for {len(table)} cases")

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def check_every(**fixtures: Any) -> None:
            failures = []
            for label, row in zip(labels, table, strict=True):
                try:
                    test(**row, **fixtures)
                except (Exception, pytest.fail.Exception) as exc:  # noqa: BLE001 - the other cases are checked too
                    failures.append(f"{label}: {type(exc).__name__}: {exc}")
            if failures:
                raise AssertionError("\n\n".join([f"{len(failures)} of {len(table)} cases fail:", *failures]))

        shared = [one for one in inspect.signature(test).parameters.values() if one.name not in given]
        check_every.__signature__ = inspect.Signature(shared)
        return check_every

    return decorate
