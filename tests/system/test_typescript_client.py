"""The TypeScript client: generated, compiled and run against a real system, through connections that break.

Every operation of the contract is called through it once, with a `fetch` that records requests.
"""

import json
import re
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


#: Bodies of the operations that need one: a new operation with one has a line here.
BODIES = {
    "submitTask": {"type": "echo", "payload": {"message": "hi"}},
    "submitTasks": {"items": [{"type": "echo", "payload": {"message": "hi"}}]},
    "putSchedule": {"type": "echo", "payload": {"message": "hi"}, "cron": "0 3 * * *"},
    "redriveDeadLetters": {"filter": {"errorType": "echo-refused"}, "dryRun": True},
    "startJob": {"verb": "redrive", "filter": {"errorType": "echo-refused"}, "canary": True},
    "pauseTasks": {"reason": "the vendor repairs its API"},
}

#: Calls one operation after another; what was requested is printed as JSON.
CALLS = """
import {{ DispatchClient }} from "./index.js";

const seen: string[] = [];
const dispatch = new DispatchClient({{
  url: "http://gateway.example",
  apiKey: "k",
  fetch: async (input, init) => {{
    const request = new Request(input, init);
    seen.push(`${{request.method}} ${{new URL(request.url).pathname}} ${{request.headers.get("Authorization")}}`);
    return new Response(null, {{ status: 204 }});
  }},
}});
{calls}
console.log(JSON.stringify(seen));
"""


def build(directory, document, sources):
    """The client with its types made of a document, and further sources, as JavaScript."""
    packages = node.installed(CLIENT, "typescript") / "node_modules"
    shutil.copytree(CLIENT, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (directory / "node_modules").symlink_to(packages)
    (directory / "openapi.json").write_text(document)
    for name, text in sources.items():
        (directory / "src" / name).write_text(text)
    for words in (GENERATE, ("typescript/bin/tsc",)):
        done = node.run(packages / words[0], *words[1:], cwd=directory)
        assert done.returncode == 0, done.stdout
    return directory


@pytest.fixture
def compiled(system, tmp_path):
    """The client with its types made of the system's own OpenAPI document, and the scenario."""
    return build(tmp_path, system.http.get("/openapi.json").text, {"scenario.ts": SCENARIO.read_text()})


def operations(document):
    """Method, path and id of every operation."""
    return [
        (method.upper(), path, operation["operationId"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def call(method, path, operation_id):
    """A call of an operation, with a value for each parameter of its path."""
    names = re.findall(r"{(\w+)}", path)
    options = {
        **({"params": {"path": dict.fromkeys(names, "x")}} if names else {}),
        **({"body": BODIES[operation_id]} if operation_id in BODIES else {}),
    }
    return f"await dispatch.api.{method}({json.dumps(path)}, {json.dumps(options)});"


@pytest.mark.timeout(420)
def test_every_operation_of_the_contract_is_called_through_the_client(tmp_path):
    text = (CLIENT / "openapi.json").read_text()
    found = operations(json.loads(text))
    calls = CALLS.format(calls="\n".join(call(*each) for each in found))
    directory = build(tmp_path, text, {"calls.ts": calls})
    done = node.run("dist/calls.js", cwd=directory)
    assert done.returncode == 0, done.stdout

    assert json.loads(done.stdout) == [f"{method} {re.sub('{.*?}', 'x', path)} Bearer k" for method, path, _ in found]
    assert BODIES.keys() <= {operation_id for *_, operation_id in found}


@pytest.mark.timeout(420)
def test_the_types_of_the_committed_document_are_those_of_a_running_gateways(compiled, tmp_path_factory):
    committed = build(tmp_path_factory.mktemp("committed"), (CLIENT / "openapi.json").read_text(), {})

    assert (committed / "src/schema.ts").read_text() == (compiled / "src/schema.ts").read_text()


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
