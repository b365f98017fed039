"""What pages name and link to is there, and what is not is found."""

import re
from pathlib import Path, PurePosixPath

import pytest

from support.cases import each
from tools.docs import links, names, pages, values, vocabulary
from tools.docs.pages import Block, Page

ROOT = Path(__file__).parents[4]
PAGES = pages.every(ROOT)


@pytest.fixture(scope="module")
def known():
    return vocabulary.of_checkout(ROOT)


def found(known, text):
    return list(names.problems(Page(PurePosixPath("docs/page.md"), text), known))


def test_every_page_names_what_there_is(known):
    assert [problem for page in PAGES for problem in names.problems(page, known)] == []


def test_every_link_leads_somewhere_and_every_page_of_docs_is_led_to():
    assert list(links.problems(PAGES, ROOT)) == []


@each(
    ("text", "problem"),
    [
        ("`DISPATCH_NO_SUCH`", "there is no setting DISPATCH_NO_SUCH"),
        ("`make coffee`", "there is no make target coffee"),
        ("`GET /v1/coffee`", "the API has no /v1/coffee"),
        ("```sh\ncurl $DISPATCH_HTTP_URL/v1/tasks/019a…/coffee\n```", "the API has no /v1/tasks/019a…/coffee"),
        ("`robot_no_such_total`", "there is no metric robot_no_such_total"),
        ("alert RobotSleeps", "there is no alert RobotSleeps"),
        ("`dispatch/no_such.py`", "there is no file dispatch/no_such.py"),
        ("`celery dlq mend`", "dlq has no command mend"),
        ("`dlq redrive --softly`", "redrive has no option --softly"),
        ("```sh\nx=1; celery -A celery_app dlq list --tpye a | head\n```", "list has no option --tpye"),
        ("```console\n$ dispatch keys new --name a\n```", "new has no option --name"),
        ("`celery -A celery_app inspct ping`", "celery has no command inspct"),
        ("`docker compose exec no-such celery -A celery_app dlq list`", "the compose file has no service no-such"),
        ("```sh\ndocker compose up -d --scale none=3   # more\n```", "the compose file has no service none"),
    ],
)
def test_what_is_not_there_is_found(known, text, problem):
    (only,) = found(known, text)

    assert only.endswith(problem)


@each(
    "text",
    [
        "`DISPATCH_BROKER_URL`, `DISPATCH_<ROLE>_BROKER_URL`, `DISPATCH_HTTP_*`, `DISPATCH_…_TLS_CA`",
        "`make up`, and things that make sense",
        "`GET /v1/tasks/{taskId}`, `curl $DISPATCH_HTTP_URL/v1/tasks?status=FAIL`",
        "`celery … dlq --as`, `celery -A celery_app dlq redrive --error-type …`, `celery worker --autoscale=8,2`",
        "`docker compose exec worker celery …`, `docker compose up -d --wait`, `docker compose down -v`",
        "`store/claims.py`, `.run/env.sh`, `/etc/a/b.conf`",
        "```python\n# tasks/new.py\n```\n`tasks/new.py`",
    ],
)
def test_what_is_there_is_not(known, text):
    assert found(known, text) == []


def test_every_value_of_a_setting_that_a_page_shows_is_taken():
    assert list(values.problems([block for page in PAGES for block in page.blocks])) == []


@each(
    ("script", "problem"),
    [
        ("DISPATCH_LADDER=soon make up", "DISPATCH_LADDER: "),
        ("export DISPATCH_NO_SUCH=1", "DISPATCH_NO_SUCH: "),
        ("export DISPATCH_BROKER_URL='amqp://a/v;amqps://b/v'", "DISPATCH_BROKER_URL"),
        ('DISPATCH_REDIS_URL="rediss://:…@redis.internal:6379/0" DISPATCH_REDIS_TLS_CA=/no/such.pem', None),
        ('DISPATCH_BROKER_URL="amqp://user:pw@a/robot;amqp://user:pw@b/robot"', None),
        ("DISPATCH_API_KEYS_FILE=$PWD/keys echo it's", None),
    ],
)
def test_what_a_process_would_refuse_is_found(script, problem):
    found = list(values.problems([Block(PurePosixPath("README.md"), 1, "sh", script)]))

    assert [problem in text for text in found] == ([True] if problem else [])


@each(
    ("text", "problem"),
    [
        ("[a](b.md)", "docs/page.md: the link b.md leads to no file"),
        ("[a](#b)", "docs/page.md: the link #b leads to no heading"),
        ("[a](../README.md#b)", "docs/page.md: the link ../README.md#b leads to no heading"),
        ("# B\n[a](#b), [c](../README.md), [d](https://example.com/#e), `[f](g.md)`", None),
    ],
)
def test_links_that_lead_nowhere_are_found(text, problem):
    page = Page(PurePosixPath("docs/page.md"), text)
    readme = Page(PurePosixPath("README.md"), "[page](docs/page.md)")

    assert list(links.problems([page, readme], ROOT)) == [*filter(None, [problem])]


def test_the_site_has_every_page():
    listed = re.findall(r"- (?:\w+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert sorted(f"docs/{path}" for path in listed) == sorted(
        str(page.path) for page in PAGES if page.path.parts[0] == "docs"
    )


def test_addresses_elsewhere_are_listed_with_their_pages():
    page = Page(PurePosixPath("docs/page.md"), "[a](https://example.com)")

    assert links.external([page]) == {"https://example.com": ["docs/page.md"]}
