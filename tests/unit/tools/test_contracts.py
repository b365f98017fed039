"""The import contracts name every file and package at the root of the tree."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def _at_the_root():
    modules = {path.stem for path in ROOT.glob("*.py")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    return modules | packages - {"dispatch"}


def test_dispatch_may_import_nothing_that_lies_at_the_root():
    (forbidden,) = [
        contract["forbidden_modules"]
        for contract in CONTRACTS["contracts"]
        if contract["type"] == "forbidden" and contract["source_modules"] == ["dispatch"]
    ]

    assert set(forbidden) == _at_the_root()


def test_root_files_are_seen_as_external_modules():
    assert CONTRACTS["include_external_packages"] is True
