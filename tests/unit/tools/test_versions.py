"""One version, wherever it is written."""

import re
import shutil

import pytest

import dispatch
import robot_dispatch_client
from support.cases import each
from tools import versions


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that have the version."""
    for pattern, _ in versions.PLACES:
        for path in versions.ROOT.glob(pattern):
            target = tmp_path / path.relative_to(versions.ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return tmp_path


def test_every_place_has_the_version_of_the_project(capsys):
    assert versions.differing() == []
    assert versions.main([]) == 0
    assert capsys.readouterr().out == f"{dispatch.__version__}\n"
    assert dispatch.__version__ == robot_dispatch_client.__version__


def test_a_place_with_another_version_is_named_with_its_line(checkout):
    path = checkout / "dispatch" / "__init__.py"
    path.write_text(path.read_text().replace(dispatch.__version__, "0.0.7"))
    (checkout / "docker-compose.yml").write_text("services: {}\n")

    assert versions.differing(checkout) == [
        f"dispatch/__init__.py:3: 0.0.7, and pyproject.toml has {dispatch.__version__}",
        f"docker-compose.yml: none, and pyproject.toml has {dispatch.__version__}",
    ]


def test_a_version_is_changed_everywhere_and_nothing_else_is(checkout):
    before = {path: path.read_text() for path in checkout.rglob("*") if path.is_file()}
    versions.change("7.8.9", checkout)

    assert {version for _, version in versions.written(checkout)} == {"7.8.9"}
    places = {place.rpartition(":")[0]: 0 for place, _ in versions.written(checkout)}
    for place, _ in versions.written(checkout):
        places[place.rpartition(":")[0]] += 1
    for path, text in before.items():
        changed = sum(a != b for a, b in zip(text.splitlines(), path.read_text().splitlines(), strict=True))
        assert changed == places.get(str(path.relative_to(checkout)), 0), path


@each("wrong", ["1.0", "v1.0.0", "1.0.0-rc1", "", "1.0.0\n"])
def test_what_is_no_version_is_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        versions.main(["--set", wrong])

    assert "X.Y.Z" in capsys.readouterr().err


def test_the_version_has_a_section_of_the_changelog_and_releases_are_in_order():
    found = re.findall(r"^## \[([^]]+)\]", (versions.ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [tuple(map(int, each.split("."))) for each in found if each != "Unreleased"]

    assert versions.unrecorded() == []
    assert released == sorted(set(released), reverse=True)


@each(
    ("sections", "lacking"),
    [
        ("## [Unreleased]\n\n## [{version}]\n", "CHANGELOG.md: no section `## [{version}] - YYYY-MM-DD`"),
        ("## [Unreleased]\n\n## [0.0.7] - 2026-01-01\n", "CHANGELOG.md: no section `## [{version}] - YYYY-MM-DD`"),
        ("## [{version}] - 2026-01-01\n", "CHANGELOG.md: [Unreleased] is not its first section"),
    ],
)
def test_what_the_changelog_lacks_is_named(checkout, sections, lacking):
    (checkout / "CHANGELOG.md").write_text(sections.format(version=dispatch.__version__))

    assert versions.unrecorded(checkout) == [lacking.format(version=dispatch.__version__)]
