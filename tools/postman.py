"""The Postman collection: the seed's "Integration Results", as tests against a live stack.

``python -m tools.postman > tests/system/postman/collection.json``. Methods, URLs and
descriptions come from the OpenAPI document, and each step's status and problem type must be documented
there, so the collection cannot differ from the contract.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dispatch.cli import pipes

_SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"

#: Maximum of polls of one task; each waits up to 20 s for a change.
_MAX_POLLS = 30


@dataclasses.dataclass(frozen=True, slots=True)
class PostmanStep:
    """One request and the expected response."""

    name: str
    operation: str  #: operationId
    status: int
    checks: tuple[str, ...] = ()  #: JavaScript; `body` is the response body
    body: Any = None  #: JSON, or raw text
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    path: Mapping[str, str] = dataclasses.field(default_factory=dict)
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    before: tuple[str, ...] = ()  #: JavaScript
    problem: str = ""  #: slug


def _echo(**payload: Any) -> dict[str, Any]:
    return {"type": "echo", "payload": {"message": "hello", **payload}}


def _equal(expression: str, value: str) -> str:
    return f'pm.test("{expression}", () => pm.expect({expression}).to.eql({value}));'


def _poll(name: str, status: str, *checks: str) -> PostmanStep:
    """Poll the task until it has ended."""
    return PostmanStep(
        name, "getTask", 200,
        (
            'const polls = Number(pm.collectionVariables.get("polls") || 0) + 1;',
            f'const ended = ["SUCCESS", "FAIL"].includes(body.status) || polls >= {_MAX_POLLS};',
            'pm.collectionVariables.set("polls", ended ? 0 : polls);',
            f"if (!ended) {{ pm.execution.setNextRequest({json.dumps(name)}); return; }}",
            _equal("body.status", f'"{status}"'), *checks,
        ),
        headers={"Prefer": "wait=20"}, path={"taskId": "{{taskId}}"},
    )  # fmt: skip


_KEEP = 'pm.collectionVariables.set("taskId", body.taskId);'
_TASK_PATH = {"taskId": "{{taskId}}"}
_OF_ID = 'pm.collectionVariables.get("taskId")'

STEPS: Mapping[str, Sequence[PostmanStep]] = {
    "Create and query": (
        PostmanStep("Ready", "isReady", 200, (_equal("body.status", '"ok"'),)),
        PostmanStep(
            "Task types", "listTaskTypes", 200,
            ('pm.test("echo is there", () => pm.expect(body.items.map((item) => item.name)).to.include("echo"));',),
        ),
        PostmanStep(
            "Create task", "submitTask", 202,
            (
                _KEEP,
                'pm.test("Location is the status URL", () => pm.expect(pm.response.headers.get("Location")).to.eql(body.statusUrl));',
                'pm.test("Retry-After", () => pm.expect(Number(pm.response.headers.get("Retry-After"))).to.be.at.least(1));',
                'pm.test("X-Request-Id is echoed", () => {',
                '  pm.expect(pm.response.headers.get("X-Request-Id")).to.eql("postman-1");',
                '  pm.expect(body.requestId).to.eql("postman-1");',
                "});",
                'pm.test("traceId", () => pm.expect(body.traceId).to.eql("4bf92f3577b34da6a3ce929d0e0e4736"));',
            ),
            _echo(),
            {"X-Request-Id": "postman-1", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        ),
        _poll(
            "Query task", "SUCCESS", _equal("body.result.message", '"hello"'), _equal("body.requestId", '"postman-1"'),
            'pm.collectionVariables.set("etag", pm.response.headers.get("ETag"));',
        ),
        PostmanStep("Query unchanged task", "getTask", 304, headers={"If-None-Match": "{{etag}}"}, path=_TASK_PATH),
        PostmanStep(
            "Events of the task", "listEvents", 200,
            ('pm.test("from accepted to succeeded", () => {',
             "  const kinds = body.map((hop) => hop.kind);",
             '  pm.expect(kinds[0]).to.eql("accepted");',
             '  pm.expect(kinds).to.include.members(["published", "started", "succeeded"]);',
             "});"),
            path=_TASK_PATH,
        ),
        PostmanStep(
            "Payload of the ended task", "getTaskPayload", 410, path=_TASK_PATH, problem="payload-gone",
        ),
        PostmanStep(
            "Children of the task", "listChildren", 200, (_equal("body.items.length", "0"),), path=_TASK_PATH,
        ),
        PostmanStep(
            "Signal the ended task", "signalTask", 409, body={"battery": 40}, path={**_TASK_PATH, "name": "charged"},
            problem="task-terminal",
        ),
        PostmanStep(
            "Deliver a webhook that it has not", "redeliverWebhook", 409, path=_TASK_PATH, problem="no-webhook",
        ),
        PostmanStep("Count tasks", "getStats", 200, (_equal("body.complete", "true"),)),
        PostmanStep(
            "List tasks", "listTasks", 200,
            (f'pm.test("the task is listed", () => pm.expect(body.items.map((item) => item.taskId)).to.include({_OF_ID}));',),
            query={"status": "SUCCESS", "type": "echo", "limit": "200"},
        ),
    ),
    "Repeat safely": (
        PostmanStep(
            "Create task with an Idempotency-Key", "submitTask", 202, (_KEEP,), _echo(), {"Idempotency-Key": "{{key}}"},
            before=('pm.collectionVariables.set("key", pm.variables.replaceIn("{{$guid}}"));',),
        ),
        PostmanStep(
            "Repeat it", "submitTask", 202,
            (
                _equal("body.taskId", _OF_ID),
                'pm.test("it is a replay", () => pm.expect(pm.response.headers.get("Idempotent-Replayed")).to.eql("true"));',
            ),
            _echo(), {"Idempotency-Key": "{{key}}"},
        ),
        PostmanStep(
            "Repeat it in a batch", "submitTasks", 207,
            (
                _equal("body.items[0].task.taskId", _OF_ID), _equal("body.items[0].replayed", "true"),
                _equal("body.items[1].status", "422"), _equal("body.items[1].problem.errors[0].pointer", '"/payload/message"'),
            ),
            {"items": [{**_echo(), "idempotencyKey": "{{key}}"}, {"type": "echo", "payload": {"message": 7}}]},
        ),
        PostmanStep(
            "Reuse the Idempotency-Key for another task", "submitTask", 422, (), _echo(sleepSeconds=1), {"Idempotency-Key": "{{key}}"},
            problem="idempotency-key-reused",
        ),
    ),
    "Cancel and run now": (
        PostmanStep(
            "Create a task for later", "submitTask", 202, (_KEEP, _equal("body.state", '"DELAYED"')),
            {**_echo(), "options": {"delaySeconds": 3_600}},
        ),
        PostmanStep("Run it now", "retryTaskNow", 202, (_equal("body.taskId", _OF_ID),), path=_TASK_PATH),
        _poll("Query it until it has run", "SUCCESS"),
        PostmanStep("It has ended", "cancelTask", 409, (_equal("body.state", '"SUCCEEDED"'),), path=_TASK_PATH, problem="task-terminal"),
        PostmanStep(
            "Create another task for later", "submitTask", 202, (_KEEP,), {**_echo(), "options": {"delaySeconds": 3_600}},
        ),
        PostmanStep("Cancel it", "cancelTask", 202, (_equal("body.state", '"CANCELLED"'),), path=_TASK_PATH),
        PostmanStep(
            "Count what a job would cancel", "startJob", 200, (_equal("body.complete", "true"),),
            {"verb": "cancel", "filter": {"type": "echo", "state": "DELAYED"}, "dryRun": True},
        ),
        PostmanStep("It never runs", "retryTaskNow", 409, (), path=_TASK_PATH, problem="task-terminal"),
    ),
    "Errors": (
        PostmanStep(
            "Bad body", "submitTask", 422,
            ('pm.test("each error has a pointer", () => {',
             "  const pointers = body.errors.map((error) => error.pointer);",
             '  pm.expect(pointers).to.have.members(["/payload/message", "/payload/colour"]);',
             "});"),
            {"type": "echo", "payload": {"message": 7, "colour": "red"}}, problem="validation-error",
        ),
        PostmanStep("Malformed JSON", "submitTask", 400, (), '{"type": "echo",', problem="malformed-json"),
        PostmanStep(
            "Unknown task type", "submitTask", 422, ('pm.test("nearest", () => pm.expect(body.nearest).to.include("echo"));',),
            {"type": "ecko", "payload": {}}, problem="unknown-task-type",
        ),
        PostmanStep("Invalid Idempotency-Key", "submitTask", 400, (), _echo(), {"Idempotency-Key": '"'}, problem="invalid-idempotency-key"),
        PostmanStep(
            "Unknown task", "getTask", 404, (), path={"taskId": "no-such-task"}, problem="task-not-found",
            headers={"X-Request-Id": "postman-2"},
        ),
        PostmanStep("Explain the problem", "getProblem", 200, (_equal("body.status", "404"),), path={"slug": "task-not-found"}),
    ),
    "Dead letters": (
        PostmanStep("Create a task that fails permanently", "submitTask", 202, (_KEEP,), _echo(permanent=True)),
        _poll("Query it until it is dead", "FAIL", _equal("body.state", '"DEAD_LETTERED"')),
        PostmanStep(
            "List dead letters", "listDeadLetters", 200,
            (f'pm.test("it is listed", () => pm.expect(body.items.map((item) => item.taskId)).to.include({_OF_ID}));',),
            query={"type": "echo", "limit": "200"},
        ),
        PostmanStep(
            "Group dead letters", "listDeadLetterGroups", 200,
            (_equal("body.items[0].filter.errorType", '"echo-refused"'), _equal("body.items[0].exampleTaskId", _OF_ID)),
            query={"type": "echo", "errorType": "echo-refused"},
        ),
        PostmanStep(
            "Get the dead letter", "getDeadLetter", 200,
            (_equal("body.deadReason", '"permanent"'), _equal("body.payload.permanent", "true")), path=_TASK_PATH,
        ),
        PostmanStep(
            "Redrive it", "redriveDeadLetter", 202, (_equal("body.taskId", _OF_ID), _equal("body.cycle", "1")), path=_TASK_PATH,
        ),
        _poll("Query it until it is dead again", "FAIL", _equal("body.cycle", "1")),
        PostmanStep(
            "Dry run of a bulk redrive", "redriveDeadLetters", 200,
            ('pm.test("at least one", () => pm.expect(body.matched).to.be.at.least(1));',),
            {"filter": {"type": "echo"}, "dryRun": True},
        ),
        PostmanStep("Discard it", "discardDeadLetter", 204, path=_TASK_PATH),
        PostmanStep("It is gone", "getDeadLetter", 404, path=_TASK_PATH, problem="task-not-found"),
        PostmanStep(
            "Who discarded it", "listAudit", 200,
            (f'pm.test("the discard is in the audit log", () => pm.expect(body.items.map((item) => item.target)).to.include({_OF_ID}));',),
            query={"verb": "discardDeadLetter", "limit": "200"},
        ),
    ),
}  # fmt: skip


def collection(document: Mapping[str, Any]) -> dict[str, Any]:
    """Build the collection.

    Args:
        document: the OpenAPI document.

    Returns:
        A Postman collection, format 2.1; the user sets the variables `baseUrl` and `apiKey`.

    Raises:
        KeyError: a step expects a response that the document does not describe.
    """
    return {
        "info": {
            "name": document["info"]["title"],
            "description": "Generated by `python -m tools.postman` from the OpenAPI document. Run it in order.",
            "schema": _SCHEMA,
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{apiKey}}", "type": "string"}]},
        "variable": [{"key": "baseUrl", "value": "http://127.0.0.1:8080"}, {"key": "apiKey", "value": ""}],
        "item": [
            {"name": folder, "item": [_item(step, document) for step in steps]} for folder, steps in STEPS.items()
        ],
    }


def _item(step: PostmanStep, document: Mapping[str, Any]) -> dict[str, Any]:
    method, path, operation = _find(step.operation, document)
    _check_documented(step, operation, document)
    headers = {"X-Request-Id": "postman"} | dict(step.headers)
    if step.body is not None:
        headers["Content-Type"] = "application/json"
    request: dict[str, Any] = {
        "method": method.upper(),
        "header": [{"key": name, "value": value} for name, value in headers.items()],
        "url": _url(path, step),
        "description": operation["summary"] + ".",
    }
    if step.body is not None:
        raw = step.body if isinstance(step.body, str) else json.dumps(step.body, indent=2)
        request["body"] = {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}
    events = [_event("test", _script(step))]
    if step.before:
        events.insert(0, _event("prerequest", step.before))
    return {"name": step.name, "event": events, "request": request}


def _find(operation_id: str, document: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["operationId"] == operation_id:
                return method, path, operation
    raise KeyError(operation_id)


def _check_documented(step: PostmanStep, operation: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    response = operation["responses"][str(step.status)]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
    if step.problem and f"/problems/{step.problem}" not in json.dumps(response):
        raise KeyError(f"{step.name}: {step.problem}")


def _url(path: str, step: PostmanStep) -> dict[str, Any]:
    parts = [f":{part[1:-1]}" if part.startswith("{") else part for part in path.strip("/").split("/")]
    query = "&".join(f"{name}={value}" for name, value in step.query.items())
    url: dict[str, Any] = {
        "raw": "{{baseUrl}}/" + "/".join(parts) + (f"?{query}" if query else ""),
        "host": ["{{baseUrl}}"],
        "path": parts,
    }
    if step.query:
        url["query"] = [{"key": name, "value": value} for name, value in step.query.items()]
    if step.path:
        url["variable"] = [{"key": name, "value": value} for name, value in step.path.items()]
    return url


def _script(step: PostmanStep) -> list[str]:
    lines = [f'pm.test("status is {step.status}", () => pm.response.to.have.status({step.status}));']
    identifier = step.headers.get("X-Request-Id", "postman")
    lines.append(
        'pm.test("the request id is echoed", () => '
        f'pm.expect(pm.response.headers.get("X-Request-Id")).to.eql("{identifier}"));'
    )
    if step.status not in {204, 304}:
        lines.append("const body = pm.response.json();")
    if step.problem:
        lines += [
            'pm.test("it is problem details", () => {',
            '  pm.expect(pm.response.headers.get("Content-Type")).to.eql("application/problem+json");',
            f'  pm.expect(body.type).to.eql("/problems/{step.problem}");',
            f"  pm.expect(body.status).to.eql({step.status});",
            f'  pm.expect(body.requestId).to.eql("{identifier}");',
            "  pm.expect(body.traceId).to.match(/^[0-9a-f]{32}$/);",
            "});",
        ]
    return [*lines, *step.checks]


def _event(listen: str, lines: Sequence[str]) -> dict[str, Any]:
    return {"listen": listen, "script": {"type": "text/javascript", "exec": list(lines)}}


def main() -> None:
    """Print the collection for the included task types."""
    import tasks  # noqa: PLC0415 - needed by this command only
    from dispatch import tasktypes  # noqa: PLC0415
    from dispatch.gateway.application import document  # noqa: PLC0415

    json.dump(collection(document(tasktypes.load(tasks))), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    with pipes.quiet():
        main()
