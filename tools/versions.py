"""The version, wherever it is written: ``python -m tools.versions [--set X.Y.Z]``. `pyproject.toml` has the one that counts, and `CHANGELOG.md` a section of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_RELEASE = r"[0-9]+\.[0-9]+\.[0-9]+"

#: Files (a pattern each) and what stands before the version in them, as a regular expression.
PLACES: tuple[tuple[str, str], ...] = (
    ("pyproject.toml", r'^version = "'),
    ("uv.lock", r'^name = "robot-dispatch"\nversion = "'),
    ("dispatch/__init__.py", r'^__version__ = "'),
    ("clients/python/pyproject.toml", r'^version = "'),
    ("clients/python/robot_dispatch_client/connection.py", r'^VERSION = "'),
    ("clients/typescript/package.json", r'^  "version": "'),
    ("clients/typescript/package-lock.json", r'"name": "robot-dispatch-client",\n\s*"version": "'),
    ("docker-compose.yml", r"image: robot-dispatch:"),
    (".env.example", r"robot-dispatch:"),
    ("deploy/helm/robot-dispatch/Chart.yaml", r"^(?:version|appVersion): "),
    ("deploy/kubernetes/*.yaml", r'(?:app\.kubernetes\.io/version: "|image: "robot-dispatch:)'),
    ("docs/**/*.md", r"robot-dispatch:"),
)


def written(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Every place and its version.

    Args:
        root: of the checkout.

    Yields:
        ``path:line`` and the version; a file without any where there should be one has "".
    """
    for pattern, before in PLACES:
        found = 0
        for path in sorted(root.glob(pattern)):
            text = path.read_text()
            for match in _matches(before, text):
                found += 1
                yield f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start('version')) + 1}", match["version"]
        if not found:
            yield pattern, ""


def differing(root: Path = ROOT) -> list[str]:
    """The places that have another version than `pyproject.toml`, one line each."""
    (_, version), *others = written(root)
    return [
        f"{place}: {other or 'none'}, and pyproject.toml has {version}" for place, other in others if other != version
    ]


def unrecorded(root: Path = ROOT) -> list[str]:
    """What the changelog lacks: [Unreleased] on top, and a dated section of the version in `pyproject.toml`."""
    _, version = next(written(root))
    sections = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    lacking = [] if sections[:1] == ["[Unreleased]"] else ["CHANGELOG.md: [Unreleased] is not its first section"]
    if not any(re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}", section) for section in sections):
        lacking.append(f"CHANGELOG.md: no section `## [{version}] - YYYY-MM-DD`")
    return lacking


def change(version: str, root: Path = ROOT) -> None:
    """Write a version everywhere.

    Args:
        version: as ``1.0.0``.
        root: of the checkout.
    """
    for pattern, before in PLACES:
        for path in sorted(root.glob(pattern)):
            text = path.read_text()
            new = re.sub(_expression(before), lambda match: f"{match['before']}{version}", text, flags=re.MULTILINE)
            if new != text:
                path.write_text(new)


def _matches(before: str, text: str) -> Iterator[re.Match[str]]:
    return re.finditer(_expression(before), text, re.MULTILINE)


def _expression(before: str) -> str:
    return rf"(?P<before>{before})(?P<version>{_RELEASE})"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, or change.

    Args:
        argv: the command line.

    Returns:
        0 when all places have the same version, and the changelog a section of it.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.versions", description=__doc__)
    parser.add_argument("--set", metavar="X.Y.Z", type=_version, help="write this version everywhere")
    given = parser.parse_args(argv).set
    if given:
        change(given)
    found = differing() + unrecorded()
    print("\n".join(found) or next(written())[1])
    return int(bool(found))


def _version(text: str) -> str:
    if not re.fullmatch(_RELEASE, text):
        raise argparse.ArgumentTypeError("a version is X.Y.Z")
    return text


if __name__ == "__main__":
    sys.exit(main())
