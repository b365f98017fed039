"""What is generated and committed must be what the code would generate now."""

import dataclasses
import json
from pathlib import Path

import pytest

import tasks
from dispatch import tasktypes
from dispatch.gateway.application import document, operations
from dispatch.gateway.contract import openapi
from dispatch.gateway.http import problems
from tools import http_reference as reference
from tools import postman, typescript

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def whole():
    return document(tasktypes.load(tasks))


def test_the_committed_postman_collection_is_the_current_one(whole):
    committed = json.loads((ROOT / "tests/system/postman/collection.json").read_text())

    assert committed == postman.collection(whole)


def test_the_document_that_the_typescript_client_is_made_of_is_the_current_one(whole):
    committed = json.loads((ROOT / "clients/typescript/openapi.json").read_text())

    assert committed == typescript.document() == whole


def test_the_collection_covers_every_operation_on_tasks_and_dead_letters():
    used = {step.operation for steps in postman.STEPS.values() for step in steps}
    wanted = {contract.id for contract in operations() if contract.path.startswith(("/v1/tasks", "/v1/dead-letters"))}

    assert wanted <= used


def test_names_in_the_collection_are_unique():
    names = [step.name for steps in postman.STEPS.values() for step in steps]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "step",
    [
        postman.PostmanStep("x", "noSuchOperation", 200),
        postman.PostmanStep("x", "getTask", 418),
        postman.PostmanStep("x", "getTask", 404, problem="task-expired"),
    ],
)
def test_a_step_that_the_contract_does_not_promise_is_refused(whole, monkeypatch, step):
    monkeypatch.setattr(postman, "STEPS", {"x": [step]})

    with pytest.raises(KeyError):
        postman.collection(whole)


def test_the_committed_reference_is_the_current_one():
    text = (ROOT / "docs/reference/http-api.md").read_text()

    assert text == reference.render(text)
    assert all(f"| `{slug}` |" in text for slug in problems.KINDS)
    assert all(f"`{contract.method} {contract.path}`" in text for contract in operations())


def test_an_operation_lists_only_problems_that_exist():
    for contract in operations():
        assert set(openapi.slugs(contract)) <= set(problems.KINDS)
        assert dataclasses.is_dataclass(contract)
