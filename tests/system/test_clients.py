"""Clients that others make: the committed Postman collection in newman (``postman/README.md``), and a generated package."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import node
from support.waiting import eventually

HERE = Path(__file__).parent / "postman"
#: The generated package; `robot_dispatch_client`, its name by default, is the one of clients/python.
PACKAGE = "generated_dispatch_client"

#: Modules of the generated client.
OPERATIONS = (
    "tasks.submit_task", "tasks.get_task", "dead_letters.redrive_dead_letter", "dead_letters.list_dead_letters",
)  # fmt: skip
TERMINAL = {"SUCCEEDED", "DEAD_LETTERED"}


@pytest.fixture(scope="module")
def newman():
    """newman's entry point."""
    return node.installed(HERE, "newman") / "node_modules" / "newman" / "bin" / "newman.js"


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
    done = node.run(newman, "run", HERE / "collection.json", *options, cwd=tmp_path)
    sys.stdout.write(done.stdout)

    assert done.returncode == 0, done.stdout[-6_000:]
    found = json.loads(report.read_text())["run"]
    collection = json.loads((HERE / "collection.json").read_text())
    assert found["failures"] == []
    assert {one["item"]["name"] for one in found["executions"]} == {
        item["name"] for folder in collection["item"] for item in folder["item"]
    }


@pytest.fixture
def generated(system, tmp_path, monkeypatch):
    """The package that a generator makes of the OpenAPI document, without a warning; importable."""
    (tmp_path / "openapi.json").write_text(system.http.get("/openapi.json").text)
    (tmp_path / "config.json").write_text(json.dumps({"package_name_override": PACKAGE}))
    words = [
        "generate",
        "--path",
        "openapi.json",
        "--output-path",
        "client",
        "--fail-on-warning",
        "--config",
        "config.json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *words],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.syspath_prepend(tmp_path / "client")
    return importlib.import_module(PACKAGE)


def test_a_generated_client_submits_waits_and_redrives(system, generated):
    api = {name: importlib.import_module(f"{generated.__name__}.api.{name}") for name in OPERATIONS}
    models = importlib.import_module(f"{generated.__name__}.models")
    client = generated.AuthenticatedClient(system.stack.env["DISPATCH_HTTP_URL"], token="none-is-needed-here")

    def submit(**payload):
        body = models.SubmitBodyEcho("echo", models.Echo(**payload))
        return api["tasks.submit_task"].sync_detailed(client=client, body=body).parsed

    def ended(task_id, cycle=0):
        task = api["tasks.get_task"].sync_detailed(task_id, client=client, prefer="wait=10").parsed
        return task.state in TERMINAL and task.cycle == cycle and task

    done = submit(message="hello")
    fails = submit(message="hello", permanent=True)
    result = eventually(lambda: ended(done.task_id), 30)
    dead = eventually(lambda: ended(fails.task_id), 30)
    redriven = eventually(
        lambda: (answer := api["dead_letters.redrive_dead_letter"].sync_detailed(fails.task_id, client=client)).status_code
        == 202 and answer.parsed, 20, "its dead letter can be redriven",
    )  # fmt: skip
    again = eventually(lambda: ended(fails.task_id, cycle=1), 30)
    listed = api["dead_letters.list_dead_letters"].sync_detailed(client=client).parsed
    missing = api["tasks.get_task"].sync_detailed("none", client=client)
    client.get_httpx_client().close()

    assert (result.status, result.result["message"]) == ("SUCCESS", "hello")
    assert (dead.state, dead.error.type_, redriven.cycle, again.state) == (
        "DEAD_LETTERED", "echo-refused", 1, "DEAD_LETTERED",
    )  # fmt: skip
    assert fails.task_id in {letter.task_id for letter in listed.items}
    assert (missing.status_code, missing.parsed.type_) == (404, "/problems/task-not-found")
