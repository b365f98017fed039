"""The pages of the documentation, run as their reader would: a checkout of their own, a stack, a shell for each page.

`tools.docs` defines what a block's language and the comment before it mean.
"""

import contextlib
import dataclasses
import itertools
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from support.stack import ROOT, Stack
from tools.docs.expected import SOME_ID, TASK_ID, is_shown
from tools.docs.pages import Block, Page, Treatment, dialogue

#: Not copied: what a run leaves behind, and the environment, to which the copy has a link.
_LEFT_OUT = (".git", ".venv", ".run*", ".*_cache", "node_modules", "dist", ".hypothesis", ".env")

#: What pages use: no page asks Flower anything.
_STARTED = "servers,simulator,worker,gateway"

#: Seconds that one command may take on a busy machine.
PATIENCE = 90.0

#: A page's output that no page may show: the API refused, so the page is wrong even if its command ended well.
_REFUSED = '"type":"/problems/'

_END = "--- the end of the commands ---"

#: What a reader types when a command asks.
_ANSWERS = "y\\n" * 5


class PageError(AssertionError):
    """A block of a page does not do what the page shows."""


@dataclasses.dataclass
class Shell:
    """A bash in which the blocks of a page are run one after the other."""

    directory: Path
    environ: dict[str, str]
    last_id: str  #: the task id that was printed last

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.directory,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, script: str) -> str:
        """What commands print, on both streams.

        Args:
            script: the commands, with `SOME_ID` for the task id that was printed last.

        Raises:
            PageError: a command failed, or took longer than `PATIENCE`; the text has the output.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
            file.write(script.replace(SOME_ID, self.last_id))
            file.flush()
            self._write(f"set -e\n. {file.name} <<<$'{_ANSWERS}'\nset +e\necho; echo '{_END}'\n")
            output = self._read()
        if found := TASK_ID.findall(output):
            self.last_id = found[-1]
        return output

    def close(self) -> None:
        """End it, with what it has started in the foreground."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _write(self, text: str) -> None:
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def _read(self) -> str:
        until = time.monotonic() + PATIENCE
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while f"\n{_END}\n".encode() not in seen:
                if not selector.select(max(0.0, until - time.monotonic())):
                    raise PageError(f"it takes longer than {PATIENCE:g} s; so far:\n{seen.decode(errors='replace')}")
                read = os.read(self._process.stdout.fileno(), 65_536)
                seen += read
                if not read:
                    raise PageError(f"it failed with status {self._process.wait()}:\n{seen.decode(errors='replace')}")
        return seen.decode(errors="replace").partition(f"\n{_END}\n")[0]


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A copy of the checkout, in which `make up` has started a stack."""

    stack: Stack
    directory: Path

    def run(self, page: Page, prelude: str, task_id: str) -> None:
        """Run a page from its beginning to its end.

        Args:
            page: its blocks of other languages are not looked at.
            prelude: commands that its shell begins with.
            task_id: what `SOME_ID` stands for until the page prints another.

        Raises:
            PageError: what is wrong, with page and line.
        """
        shell = Shell(self.directory, self.stack.environ, task_id)
        try:
            shell.run(prelude)
            for block, output in _with_outputs(page):
                try:
                    self._block(shell, block, output)
                except PageError as exc:
                    raise PageError(f"{block.place}: {exc}\n{block.text}") from None
        finally:
            shell.close()

    def write(self, page: Page) -> None:
        """Write a page's files of Python.

        Args:
            page: nothing of it is run.
        """
        for block in page.blocks:
            if block.treatment is Treatment.WRITTEN:
                self._write(block)

    def _write(self, block: Block) -> None:
        (self.directory / str(block.path)).write_text(block.text)

    def _block(self, shell: Shell, block: Block, output: Block | None) -> None:
        if block.treatment is Treatment.WRITTEN:
            self._write(block)
        elif block.language == "console":
            for command, expected in dialogue(block.text):
                _compare(expected, shell.run(command))
        else:
            printed = "".join(map(shell.run, _commands(block.text)))
            if output is not None:
                _compare(output.text, printed, gaps=output.language == "http")
            elif _REFUSED in printed:
                raise PageError(f"the API refused:\n{printed}")


@contextlib.contextmanager
def workspace(pages: Iterable[Page], **settings: object) -> Iterator[Workspace]:
    """A copy of the checkout with a running stack; both are thrown away in the end.

    Args:
        pages: their files are there before the stack starts, which reads them.
        settings: e.g. ``lease=2`` for ``DISPATCH_LEASE=2``.
    """
    directory = Path(tempfile.mkdtemp(prefix="robot-dispatch-docs-")).resolve()
    directory.chmod(0o755)  # the servers' own users pass through it
    inherited = {
        name: value for name, value in os.environ.items() if not re.match("DISPATCH_|PYTEST_|MAKE|VIRTUAL", name)
    }
    own = {f"DISPATCH_{name.upper()}": str(value) for name, value in settings.items()}
    # PYTHONPATH: in a clone, the environment's own link to the project leads to the clone.
    environ = {**inherited, **own, "DISPATCH_HTTP_PORT": "0", "PYTHONPATH": str(directory), "CURL_HOME": str(directory)}
    stack = Stack(directory / ".run", environ)
    try:
        shutil.copytree(ROOT, directory, ignore=shutil.ignore_patterns(*_LEFT_OUT), dirs_exist_ok=True)
        (directory / ".venv").symlink_to(ROOT / ".venv")
        for path in ("pyproject.toml", "uv.lock"):  # older than the environment, so that make installs nothing
            os.utime(directory / path, (0, 0))
        (directory / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal: no meter
        made = Workspace(stack, directory)
        for page in pages:
            made.write(page)
        command = [sys.executable, "-m", "launcher", "up", "--only", _STARTED]
        subprocess.run(command, cwd=directory, env=environ, check=True, timeout=150, stdout=subprocess.DEVNULL)
        yield made
    finally:
        stack.destroy()
        shutil.rmtree(directory, ignore_errors=True)


def _with_outputs(page: Page) -> Iterator[tuple[Block, Block | None]]:
    """The blocks that are run, each with the one that shows its output."""
    for block, after in itertools.zip_longest(page.blocks, page.blocks[1:]):
        if block.treatment in {Treatment.RUN, Treatment.WRITTEN}:
            yield block, after if after is not None and after.treatment is Treatment.COMPARED else None


def _commands(script: str) -> Iterator[str]:
    """The commands of a script one by one: what one prints may be what `SOME_ID` stands for in the next."""
    command = ""
    for line in script.splitlines(keepends=True):
        command += line
        if not command.endswith("\\\n") and _is_complete(command):
            yield command
            command = ""
    if command:
        yield command


def _is_complete(command: str) -> bool:
    done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False)
    return not done.returncode and not done.stderr  # a here-document that is cut off is a warning


def _compare(expected: str, printed: str, *, gaps: bool = False) -> None:
    if not is_shown(expected, printed, gaps=gaps):
        raise PageError(f"the page shows\n{expected}\nand it prints\n{printed}\n")
