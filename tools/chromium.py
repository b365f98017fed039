"""Debian's Chromium without a screen, for tests and benchmarks of pages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A browser of Playwright's.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("chromium is missing: scripts/setup-chromium.sh")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the group dev, which some parts do without

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield started
        finally:
            started.close()
