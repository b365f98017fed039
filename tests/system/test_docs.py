"""Every block of README and docs that can run here is run, page by page, on a stack of its own, and does what it shows."""

from pathlib import PurePosixPath

import httpx
import pytest

from support import docs
from support.stack import ROOT
from support.waiting import eventually
from tools.docs import pages
from tools.docs.pages import Treatment

PAGES = {page.path: page for page in pages.every(ROOT)}

#: Pages that show how a shell is prepared; the others follow the first block of the index.
TUTORIAL = PurePosixPath("docs/tutorial/first-task-type.md")
FROM_THE_START = (PurePosixPath("README.md"), TUTORIAL)

#: Short waits, and patience: that the machine is busy is no page's fault.
SETTINGS = {
    "ladder": "1m=1,5m=2,30m=3",
    "robot_poll": 0.2,
    "soft_shutdown": 3,
    "store_timeout": 0.75,
    "confirm_timeout": 2.5,
}

pytestmark = pytest.mark.timeout(480)

#: As `make demo` leaves it: orders that the vendor refuses, so that there are dead letters to look at.
REFUSED = {"type": "robot.clean", "payload": {"robot": "SN-REFUSE", "areas": ["lobby"]}}
DEAD_LETTERS = 3


@pytest.fixture(scope="module")
def workspace():
    others = [page for path, page in PAGES.items() if path != TUTORIAL]  # whose reader sees the system without its file
    with docs.workspace(others, **SETTINGS) as workspace:
        yield workspace


@pytest.fixture
def dead_letters(workspace):
    """Ids of dead letters."""
    with httpx.Client(base_url=workspace.stack.env["DISPATCH_HTTP_URL"], timeout=30) as http:

        def listed():
            return [task["taskId"] for task in http.get("/v1/dead-letters").json()["items"]]

        for _ in range(DEAD_LETTERS - len(listed())):
            http.post("/v1/tasks", json=REFUSED).raise_for_status()
        return eventually(lambda: len(ids := listed()) >= DEAD_LETTERS and ids, 60, "the orders are dead letters")


def is_run(page):
    return any(block.treatment in {Treatment.RUN, Treatment.WRITTEN} for block in page.blocks)


@pytest.mark.parametrize("path", [path for path, page in PAGES.items() if is_run(page)], ids=str)
def test_a_page_does_what_it_shows(workspace, dead_letters, path):
    index = PAGES[PurePosixPath("docs/index.md")]
    prelude = "" if path in FROM_THE_START else index.blocks[0].text

    workspace.run(PAGES[path], prelude, dead_letters[0])
