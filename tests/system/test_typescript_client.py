"""The TypeScript client: generated, compiled and run against a real system, through connections that break."""

import json
import shutil
import uuid

import pytest

from support import node
from support.proxy import DOWN, Proxy
from support.stack import ROOT

CLIENT = ROOT / "clients" / "typescript"
#: As in its package.json.
GENERATE = (
    "openapi-typescript/bin/cli.js",
    "openapi.json",
    "--default-non-nullable=false",
    "--output",
    "src/schema.ts",
)

SCENARIO = ROOT / "tests" / "system" / "typescript" / "scenario.ts"


@pytest.fixture
def compiled(system, tmp_path):
    """The client with its types made of the system's own OpenAPI document, and the scenario, as JavaScript."""
    packages = node.installed(CLIENT, "typescript") / "node_modules"
    shutil.copytree(CLIENT, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (tmp_path / "node_modules").symlink_to(packages)
    (tmp_path / "openapi.json").write_text(system.http.get("/openapi.json").text)
    shutil.copy(SCENARIO, tmp_path / "src")
    for words in (GENERATE, ("typescript/bin/tsc",)):
        done = node.run(packages / words[0], *words[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stdout
    return tmp_path


@pytest.mark.timeout(420)
def test_the_typescript_client_compiles_and_does_each_task_once(system, compiled):
    key = uuid.uuid4().hex
    cuts = []

    def watch(direction, data):
        """Lose the answer to the first submission, and cut a stream after its first events."""
        marker = (b"HTTP/1.1 202", b"event: accepted")[len(cuts)] if len(cuts) < 2 else b""
        if direction == DOWN and marker and marker in data:
            cuts.append(marker)
            proxy.cut()

    with Proxy.to(system.stack.env["DISPATCH_HTTP_URL"]) as proxy:
        proxy.watch = watch
        done = node.run("dist/scenario.js", proxy.url, key, cwd=compiled)
    assert done.returncode == 0, done.stdout
    found = json.loads(done.stdout.strip().split("\n")[-1])  # U+2028 is no line end

    assert len(cuts) == 2
    assert (found["done"], found["result"]["message"]) == ("SUCCESS", "a\u2028b")
    assert found["listed"] == [found["first"]]
    assert [each.split()[0] for each in found["kinds"]] == [str(number + 1) for number in range(len(found["kinds"]))]
    assert (found["kinds"][0], found["kinds"][-1].split()[1]) == ("1 accepted", "succeeded")
    assert (found["timeout"], found["missing"]) == ("DELAYED", "404 task-not-found")
    assert (found["unknown"], found["invalid"]) == ("422 unknown-task-type", "422 validation-error")
    assert found["types"] == ["echo", "http.request", "robot.clean"]
