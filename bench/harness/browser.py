"""A browser as a client of the console: what its user waits for. Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

#: Kept from the first script of a page on; as Lighthouse counts: TBT is what of each task of the main thread is beyond 50 ms.
_OBSERVED = """
window.seen = {paint: {}, largest: 0, shifted: 0, long: []};
const on = (type, act) => new PerformanceObserver((list) => list.getEntries().forEach(act)).observe({type, buffered: true});
on("paint", (each) => { window.seen.paint[each.name] = each.startTime; });
on("largest-contentful-paint", (each) => { window.seen.largest = each.startTime; });
on("layout-shift", (each) => { if (!each.hadRecentInput) window.seen.shifted += each.value; });
on("longtask", (each) => { window.seen.long.push([each.startTime, each.duration]); });
"""

_READ = """() => {
  const page = performance.getEntriesByType("navigation")[0];
  const files = performance.getEntriesByType("resource").filter((each) => !each.name.includes("/live"));
  return {...window.seen, first: window.seen.paint["first-contentful-paint"], loaded: page.loadEventEnd, answered: page.responseStart,
    bytes: page.transferSize + files.reduce((sum, each) => sum + each.transferSize, 0)};
}"""

#: A screen's height at each frame, to the end and back: the longest time between two frames, ms.
_SCROLL = """() => new Promise((done) => {
  let last = 0, longest = 0, step = 400, to = 0;
  const frame = (at) => {
    if (last) longest = Math.max(longest, at - last);
    last = at; to += step;
    window.scrollTo(0, to);
    if (to > document.documentElement.scrollHeight) step = -step;
    if (to < 0) done(longest); else requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""

#: Milliseconds after the load in which late paints, shifts and tasks of the main thread count.
_SETTLES = 1_500

#: Milliseconds after which a new window is at rest: Chromium loads pages of its own into each, for its address bar, and a user's window has long been open.
_STARTS = 2_000


@dataclasses.dataclass(frozen=True)
class Tab:
    """A page of a browser without a cache."""

    page: Any
    base: str

    def open(self, path: str) -> Mapping[str, float]:
        """Go there; what a user waits for, ms, and bytes."""
        self.page.goto(self.base + path, wait_until="load")
        self.page.wait_for_timeout(_SETTLES)
        seen = self.page.evaluate(_READ)
        blocked = sum(max(0.0, took - 50) for _, took in seen["long"])
        return {
            "FCP ms": seen["first"], "LCP ms": seen["largest"], "CLS": seen["shifted"], "TBT ms": blocked,
            "first byte ms": seen["answered"], "load ms": seen["loaded"], "kB": seen["bytes"] / 1_000,
        }  # fmt: skip

    def next(self, key: str) -> tuple[float, float]:
        """Press a key that leads to another page; ms until it is loaded, and the longest task of its main thread."""
        with self.page.expect_navigation(wait_until="load"):
            self.page.keyboard.press(key)
        seen = self.page.evaluate(_READ)
        return seen["loaded"], self.longest()

    def scroll(self) -> float:
        """To the end of the page and back; the longest time between two frames, ms."""
        return float(self.page.evaluate(_SCROLL))

    def stay(self, seconds: float) -> None:
        """Watch the page as it changes."""
        self.page.wait_for_timeout(seconds * 1_000)

    def longest(self) -> float:
        """The longest task of the main thread since the page was opened, ms; 0 for none above 50."""
        return max((took for _, took in self.page.evaluate("window.seen.long")), default=0.0)


@contextlib.contextmanager
def tab(browser: Any, base: str) -> Iterator[Tab]:
    """A page with cookies and a cache of its own, which are empty.

    Args:
        browser: from `tools.chromium`.
        base: the address of the gateway.
    """
    context = browser.new_context(viewport={"width": 1_280, "height": 900})
    try:
        context.add_init_script(_OBSERVED)
        page = context.new_page()
        page.goto(f"{base}/livez")  # the start of a renderer is the browser's, and so is that of its window
        page.wait_for_timeout(_STARTS)
        yield Tab(page, base)
    finally:
        context.close()
