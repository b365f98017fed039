"""A page's blocks, headings, links and spans of code."""

from pathlib import PurePosixPath

from support.cases import each
from tools.docs import pages
from tools.docs.pages import Block, Page, Treatment

TEXT = """\
# One *thing*: `and` another!

See [the other](other.md#there), `a
b`, and ``none``.

<!-- not run: it takes Docker -->
```sh
docker ps   # [not](a-link.md), `no span`
```

- in a list:

  ```console
  $ first \\
  > more
  printed
  $ second
  ```

<!-- output -->
```http
HTTP/1.1 200 OK
```

## Twice
## Twice
"""
PAGE = Page(PurePosixPath("docs/page.md"), TEXT)


def block(language, text, mark=None):
    return Block(PurePosixPath("README.md"), 1, language, text, mark)


def test_blocks_have_place_language_text_and_the_mark_of_the_line_before():
    assert [(each.place, each.language, each.mark, each.reason) for each in PAGE.blocks] == [
        ("docs/page.md:7", "sh", "not run", "it takes Docker"),
        ("docs/page.md:13", "console", None, None),
        ("docs/page.md:21", "http", "output", None),
    ]
    assert PAGE.blocks[1].text == "$ first \\\n> more\nprinted\n$ second\n"


def test_commands_of_a_dialogue_have_what_each_prints():
    assert pages.dialogue(PAGE.blocks[1].text) == [("first \\\nmore\n", "printed\n"), ("second\n", "")]
    assert PAGE.blocks[1].script == "first \\\nmore\nsecond\n"


def test_links_and_spans_are_those_of_the_prose():
    assert PAGE.links == ["other.md#there"]
    assert [span for span in PAGE.spans if span.strip()] == ["and", "a b", "none"]


def test_anchors_are_those_of_github():
    assert PAGE.anchors == {"one-thing-and-another", "twice", "twice-1"}


@each(
    ("language", "text", "mark", "treatment"),
    [
        ("sh", "ls\n", None, Treatment.RUN),
        ("console", "$ ls\n", None, Treatment.RUN),
        ("sh", "ls\n", "not run", Treatment.CHECKED),
        ("python", "# tasks/a.py\n", None, Treatment.WRITTEN),
        ("json", "{}\n", None, Treatment.PARSED),
        ("json", "{}\n", "output", Treatment.COMPARED),
        ("text", "-->\n", None, Treatment.FIGURE),
    ],
)
def test_a_block_is_treated_by_its_language_and_mark(language, text, mark, treatment):
    assert block(language, text, mark).treatment is treatment


@each(
    ("text", "path"),
    [
        ("# tasks/a.py\nx = 1\n", "tasks/a.py"),
        ("x = 1\n", None),
        ("#!/bin/python\n", None),
        ("# tasks.py is a file\n", None),
    ],
)
def test_python_begins_with_its_path(text, path):
    assert block("python", text).path == path
