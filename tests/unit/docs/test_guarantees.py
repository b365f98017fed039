"""What docs/explanation/guarantees.md names as tested, is there: each file, each test, each fault point."""

import re
from pathlib import Path

from dispatch import crashpoints
from support.cases import each

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/explanation/guarantees.md").read_text()


@each("path", sorted(set(re.findall(r"`(?:tests/)?((?:deploy|faults|integration|system|unit)/[\w/]+\.py)", PAGE))))
def test_each_file_of_tests_is_there(path):
    assert (ROOT / "tests" / path).exists()


@each("name", sorted(set(re.findall(r"::(test_\w+)", PAGE))))
def test_each_test_is_there(name):
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_each_fault_point_has_its_line():
    assert re.findall(r"\| `([a-z.-]+)` \|", PAGE) == list(crashpoints.POINTS)
