"""The operators' console in a browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page

from dispatch.config import api_keys
from support.processes import ROOT

PEPPER = "pepper"

#: Widths at which every page is looked at: a wide screen, a laptop, a telephone; the rules of axe differ between the last two alone.
WIDTHS, AXE_WIDTHS = (1_920, 1_280, 390), (1_280, 390)

#: Where pictures of the pages are left for people to look at.
PICTURES = ROOT / ".run" / "console"

AXE = Path(__file__).parent / "axe"


def key(name: str, *scopes: str) -> tuple[str, str]:
    """An API key, and its entry in the settings."""
    text = api_keys.token(name, api_keys.new_secret())
    return text, str(api_keys.ApiKey(name, api_keys.digest(PEPPER, text), frozenset(scopes)))


#: The key of an operator who may do everything, and its entry.
ADMIN, ADMIN_ENTRY = key("night-shift", *api_keys.SCOPES)


class Seen:
    """A page of the browser, and everything that its console has shown."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.errors: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, path: str) -> Page:
        """Go to a page of the console."""
        self.page.goto(self.base + path, wait_until="load")
        return self.page

    def sign_in(self, text: str) -> None:
        """Sign in with an API key."""
        self.open("/ops/sign-in")
        self.page.fill("#key", text)
        self.page.click("button:has-text('Sign in')")
        self.page.wait_for_selector("#health")

    def inspect(self, name: str) -> None:
        """Take pictures of the page as it is, and look for what excludes people, at every width."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            self.page.wait_for_timeout(300)  # charts are drawn anew for another width
            self.page.screenshot(path=PICTURES / f"{name}-{width}.png", full_page=True)
            wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} is {wide} px wider than {width} px"
            found = violations(self.page) if width in AXE_WIDTHS else []
            assert not found, f"{name} at {width} px:\n" + "\n".join(found)
        self.page.set_viewport_size({"width": 1_280, "height": 900})


@contextlib.contextmanager
def visiting(browser: Browser, base: str, *, scheme: str = "light") -> Iterator[Seen]:
    """A visitor with cookies of its own; at the end its console must have shown no error."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1_280, "height": 900})
    context.set_default_timeout(20_000)
    try:
        seen = Seen(context.new_page(), base)
        yield seen
        assert seen.errors == []
    finally:
        context.close()


def violations(page: Page) -> list[str]:
    """What axe finds that is serious or critical."""
    page.evaluate((AXE / "axe.min.js").read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def checked_sums(folder: Path) -> list[str]:
    """The files of a folder of vendored files, by its SHA256SUMS; fails for one that differs."""
    names = []
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
        names.append(name.removeprefix("./"))
    return names


def vendored(folder: Path) -> None:
    """Check that a folder has the files of its SHA256SUMS, as they were, and no other."""
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted([*checked_sums(folder), "README.md", "SHA256SUMS"]) == sorted(there)
