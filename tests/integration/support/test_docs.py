"""The runner of pages notices what a reader would notice: a command that fails, hangs, refuses, or prints something else."""

import os
from pathlib import PurePosixPath

import pytest

from support import docs
from support.docs import PageError, Workspace
from support.stack import Stack
from tools.docs.pages import Page

ID = "01a219da-42c7-73be-b19f-d09392698047"


@pytest.fixture
def read(tmp_path):
    """Runs a page's text in an empty directory."""
    workspace = Workspace(Stack(tmp_path / ".run", dict(os.environ)), tmp_path)

    def run(text, prelude="", task_id=ID):
        workspace.run(Page(PurePosixPath("docs/page.md"), text), prelude, task_id)

    return run


def test_a_page_has_one_shell_whose_reader_copies_ids_and_answers_questions(read, tmp_path):
    other = ID.replace("01a2", "01b3")
    read(
        f"""
```sh
[ "$known" = 019a… ] && cd /tmp
show() {{
    echo $1
}}
read -r answer && [ "$answer" = y ]
```

```console
$ pwd && echo {other} | tee {tmp_path}/id
/tmp
019a…
$ show 019a…
{other}
```

```sh
show one
show two | sed 's/^/and /'
```
<!-- output -->
```text
one
and two
```

```python
# made.py
x = 1
```
""",
        prelude=f"known={ID}",
    )

    assert (tmp_path / "made.py").read_text() == "# made.py\nx = 1\n"


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("```sh\necho first\nfalse\necho not reached\n```", "docs/page.md:1: it failed with status 1:"),
        ("```sh\ncd /no/such/place\n```", "No such file or directory"),
        ("```sh\nexit 0\n```", "it failed with status 0"),
        ("```console\n$ echo one\ntwo\n```", "the page shows\ntwo\n\nand it prints\none"),
        ("```console\n$ echo surprise\n```", "and it prints\nsurprise"),
        ('```sh\necho \'{"type":"/problems/task-not-found"}\'\n```', "the API refused"),
        ("```sh\nexec sleep 60\n```", "it takes longer than 1 s"),
    ],
)
def test_a_page_that_is_wrong_is_shown_with_its_place(read, monkeypatch, block, problem):
    monkeypatch.setattr(docs, "PATIENCE", 1.0 if "sleep" in block else 30.0)

    with pytest.raises(PageError) as raised:
        read(block)

    assert problem in str(raised.value)


def test_what_is_marked_is_not_run(read):
    read("<!-- not run: it takes another machine -->\n```sh\nfalse\n```\n")
