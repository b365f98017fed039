"""Licences: the page is made of the lock file, and one that has no name is refused."""

import importlib.metadata
import textwrap

import pytest

from support.cases import each
from tools import licences

LOCK = """
[[package]]
name = "robot-dispatch"
version = "1.0.0"
dependencies = [
    { name = "a" },
    { name = "b", extra = ["fast"] },
    { name = "windows-only", marker = "sys_platform == 'win32'" },
]
[package.dev-dependencies]
dev = [{ name = "linter" }]

[[package]]
name = "a"
version = "1"
dependencies = [{ name = "b" }, { name = "old-python", marker = "python_full_version < '3.11.3'" }]

[[package]]
name = "b"
version = "2"
dependencies = [{ name = "a" }]
[package.optional-dependencies]
fast = [{ name = "c" }]
slow = [{ name = "d" }]

[[package]]
name = "c"
version = "3"

[[package]]
name = "d"
version = "4"

[[package]]
name = "linter"
version = "5"
"""


def test_the_page_is_made_of_the_lock_file():
    page = (licences.ROOT / "docs" / "reference" / "licences.md").read_text()

    assert page == licences.page(), "python -m tools.licences docs/reference/licences.md"


def test_what_production_installs_is_followed_through_extras_and_circles():
    assert licences.locked(LOCK) == {"a": "1", "b": "2", "c": "3"}


def fake(monkeypatch, headers):
    message = importlib.metadata._adapters.Message(
        importlib.metadata.email.message_from_string(textwrap.dedent(headers))
    )
    monkeypatch.setattr(importlib.metadata, "metadata", lambda _: message)


@each(
    ("headers", "expected"),
    [
        ("Name: a\nLicense-Expression: MIT AND PSF-2.0\nLicense: other", "MIT AND PSF-2.0"),
        ("Name: a\nLicense: BSD", "BSD-3-Clause"),
        ("Name: a\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("Name: a\nLicense: see the file\nClassifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        (
            "Name: a\nLicense: Dual License\nClassifier: License :: OSI Approved :: BSD License\nClassifier: License :: OSI Approved :: Apache Software License",
            "Apache-2.0 OR BSD-3-Clause",
        ),
    ],
)  # fmt: skip
def test_a_licence_is_read_from_what_the_package_has(headers, expected):
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake(monkeypatch, headers)

        assert licences.licence("a") == expected


@each("headers", ["Name: a", "Name: a\nLicense: All rights reserved", "Name: a\nLicense: Dual License"])
def test_a_licence_that_is_not_known_is_refused(headers):
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake(monkeypatch, headers)

        with pytest.raises(LookupError, match="without a name here"):
            licences.licence("a")


def test_a_package_that_is_not_installed_is_an_error():
    with pytest.raises(LookupError, match="make setup"):
        licences.licence("none-of-this-name")


def test_what_the_gateway_serves_of_others_has_its_licence():
    found = {name: terms for name, terms, _ in licences.vendored(licences.ROOT)}

    assert found["swagger-ui"] == "Apache-2.0"
