"""Pages about the gateway: HTML for browsers, JSON for everything else, and every link leads somewhere."""

import re

import pytest

from dispatch.gateway.contract import response_models
from dispatch.gateway.http import problems
from dispatch.gateway.views.pages import LINKS
from support.cases import each
from support.gateway_fakes import World

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
PAGES = ("/", "/problems", *(kind.type for kind in problems.KINDS.values()))


@pytest.fixture(scope="module")
def client():
    return World().client()


@each(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        (BROWSER, "text/html"),
        ("image/png", "application/json"),
    ],
)
def test_a_page_is_html_for_browsers(accept, media_type):
    answers = [
        World().client().get(path, headers={"Accept": accept} if accept else {})
        for path in ("/", "/problems", "/problems/task-expired")
    ]

    assert {(answer.status_code, answer.mimetype, answer.headers["Vary"]) for answer in answers} == {
        (200, media_type, "Accept")
    }


def test_a_page_is_whole_and_shows_no_markup_of_its_source(client):
    for path in PAGES:
        answer = client.get(path, headers={"Accept": BROWSER})
        text = answer.get_data(as_text=True)
        assert text.rstrip().endswith("</html>")
        assert "`" not in text
        assert "{{" not in text
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_every_link_of_every_page_leads_somewhere(client):
    found = {
        link
        for path in PAGES
        for link in re.findall(r'(?:href|src)="([^"]+)"', client.get(path, headers={"Accept": BROWSER}).text)
    }

    assert {kind.type for kind in problems.KINDS.values()} | LINKS.keys() <= found
    assert [link for link in sorted(found) if _status(client, link) != 200] == []


def _status(client, path):
    with client.get(path) as answer:  # a file of its own may be open
        return answer.status_code


def test_the_same_as_json(client):
    home = response_models.HomeModel.model_validate(client.get("/").json)
    listed = response_models.ProblemPagesModel.model_validate(client.get("/problems").json).items

    assert (home.name, [link.href for link in home.links]) == ("Robot Dispatch", list(LINKS))
    assert [page.type for page in listed] == [kind.type for kind in problems.KINDS.values()]
    assert listed[0].model_dump() == client.get(listed[0].type).json


def test_text_of_a_problem_is_escaped_and_its_code_marked():
    app = World().app()

    assert app.jinja_env.filters["code"]("`<b>` & <i>") == "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"
