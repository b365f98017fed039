"""Blocks that are read by the programs they are for: bash and shellcheck, Ruff, parsers of JSON and YAML."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tools.docs.pages import FIGURE, SHELLS, Block

#: Of shellcheck: what a page leaves to its reader. SC1090, SC1091: files that are not there yet; SC2034, SC2154: variables of
#: another block; SC2086: addresses without quotation marks; SC2164: a reader sees that `cd` failed.
_LEFT_TO_READERS = "SC1090,SC1091,SC2034,SC2154,SC2086,SC2164"

_LANGUAGES = frozenset({*SHELLS, "python", "json", "yaml", "ini", "http", FIGURE})


def problems(blocks: Sequence[Block], root: Path) -> Iterator[str]:
    """What is wrong with the blocks of all pages.

    Args:
        blocks: the blocks.
        root: the checkout, whose Ruff configuration counts.
    """
    for block in blocks:
        if block.language not in _LANGUAGES:
            yield f"{block.place}: a block needs one of the languages {', '.join(sorted(_LANGUAGES))}"
        if block.mark == "not run" and not block.reason:
            yield f"{block.place}: a block that is not run needs the reason"
        if block.language == "python" and block.path is None:
            yield f"{block.place}: Python begins with its path, as in `# tasks/doors.py`"
        if problem := _data(block):
            yield f"{block.place}: {problem}"
    yield from _shell([block for block in blocks if block.language in SHELLS and block.mark != "output"])
    for block in blocks:
        if block.path:
            yield from _python(block, root)


def _data(block: Block) -> str | None:
    try:
        if block.mark == "output":
            return None
        if block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif block.language == "ini":
            return _ini(block.text)
    except ValueError as exc:
        return f"not {block.language}: {exc}"
    except yaml.YAMLError as exc:
        return f"not yaml: {exc}"
    return None


def _ini(text: str) -> str | None:
    """RabbitMQ's kind: keys with dots, one a line, none twice."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    keys = [line.partition(" = ")[0] for line in lines]
    wrong = [line for line in lines if not re.fullmatch(r"[a-z][\w.]* = \S.*", line)]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    return f"not a line of rabbitmq.conf: {wrong[0]}" if wrong else f"twice: {twice[0]}" if twice else None


def _shell(blocks: Sequence[Block]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for number, block in enumerate(blocks):
            file = Path(directory) / f"{number}.sh"
            file.write_text(block.script)
            files[str(file)] = block
        done = _run(
            "shellcheck",
            "--shell=bash",
            f"--exclude={_LEFT_TO_READERS}",
            "--format=gcc",
            *files,
            directory=Path(directory),
        )
    for line in done.splitlines():
        path, at, _, text = line.split(":", 3)
        block = files[path]
        yield f"{block.page}:{block.line + int(at)}:{text}"


def _python(block: Block, root: Path) -> Iterator[str]:
    name = str(root / str(block.path))
    # Ruff takes a package for ours by its files, and the page's is not there.
    ours = ("--config", "lint.isort.known-first-party=['tasks', 'dispatch', 'examples', 'support']")
    for words in (("check", "--output-format=concise"), ("format", "--diff")):
        done = _run(
            "ruff",
            *words,
            *ours,
            "--no-cache",
            "--quiet",
            "--stdin-filename",
            name,
            "-",
            text=block.text,
            directory=root,
        )
        yield from (f"{block.place}: {line.replace(name, str(block.path))}" for line in done.splitlines())


def _run(program: str, *words: str, directory: Path, text: str | None = None) -> str:
    """What a linter of this interpreter's environment prints."""
    command = [str(Path(sys.executable).parent / program), *words]
    done = subprocess.run(command, cwd=directory, input=text, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")
    return done.stdout
