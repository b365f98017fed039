import json
import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import tasks
from dispatch import tasktypes
from dispatch.gateway.http import problems
from support.gateway_fakes import World


@pytest.fixture(scope="module")
def document():
    return World().client().get("/openapi.json").json


def responses(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                ref = response.get("$ref")
                found = document["components"]["responses"][ref.rpartition("/")[2]] if ref else response
                yield f"{method.upper()} {path}", status, found


def test_the_document_is_valid_openapi_3_1():
    found = World(types=tasktypes.load(tasks)).client().get("/openapi.json").json

    assert found["openapi"].startswith("3.1")
    assert {"echo", "robot.clean"} < set(found["components"]["schemas"]["SubmitBody"]["discriminator"]["mapping"])
    assert list(OpenAPIV31SpecValidator(found).iter_errors()) == []


def test_every_route_is_documented_and_every_documented_route_is_served(document):
    app = World().app()
    served = {
        (method, openapi_path(rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static" and not rule.endpoint.startswith("ops.")  # pages for people
    }
    documented = {
        (method.upper(), openapi_path(path)) for path, methods in document["paths"].items() for method in methods
    }

    assert served == documented


def openapi_path(rule):
    """Both spellings of a parameter, as one."""
    return "/".join("*" if part.startswith(("{", "<")) else part for part in rule.split("/"))


def test_the_routes_of_the_contract_are_there(document):
    listed = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}

    assert {
        "POST /v1/tasks", "POST /v1/tasks/batch", "POST /v1/tasks/{taskId}/webhook/redeliver", "GET /v1/tasks/{taskId}", "GET /v1/tasks", "GET /v1/tasks/{taskId}/events",
        "GET /v1/tasks/{taskId}/payload", "GET /v1/tasks/{taskId}/children", "GET /v1/stats",
        "POST /v1/tasks/{taskId}/cancel", "POST /v1/tasks/{taskId}/retry-now",
        "GET /v1/schedules", "GET /v1/schedules/{name}", "PUT /v1/schedules/{name}", "DELETE /v1/schedules/{name}",
        "POST /v1/schedules/{name}/pause", "POST /v1/schedules/{name}/resume", "POST /v1/schedules/{name}/run-now",
        "POST /v1/tasks/{taskId}/signals/{name}", "POST /v1/callbacks/{token}",
        "GET /v1/task-types", "GET /v1/task-types/{name}", "GET /v1/queues", "GET /v1/queues/{name}", "GET /v1/workers", "GET /v1/audit",
        "GET /v1/dead-letters", "GET /v1/dead-letters/groups", "GET /v1/dead-letters/{taskId}", "POST /v1/dead-letters/{taskId}/redrive",
        "POST /v1/dead-letters/redrive", "GET /v1/jobs", "POST /v1/jobs", "GET /v1/jobs/{jobId}", "GET /v1/pauses", "GET /v1/keys", "GET /v1/keys/{key}", "PUT /v1/pauses/{what}", "DELETE /v1/pauses/{what}", "POST /v1/jobs/{jobId}/stop", "DELETE /v1/dead-letters/{taskId}", "GET /livez", "GET /readyz", "GET /metrics",
        "GET /openapi.json", "GET /docs", "GET /", "GET /problems", "GET /problems/{slug}",
    } == listed  # fmt: skip


def test_every_response_documents_the_request_id(document):
    assert [
        (where, status) for where, status, found in responses(document) if "X-Request-Id" not in found["headers"]
    ] == []


def test_every_error_is_problem_details(document):
    wrong = [
        (where, status)
        for where, status, found in responses(document)
        if status >= "400" and list(found["content"]) != ["application/problem+json"]
    ]

    assert wrong == []


def test_headers_a_client_relies_on_are_documented(document):
    submit = document["paths"]["/v1/tasks"]["post"]["responses"]["202"]["headers"]
    get = document["paths"]["/v1/tasks/{taskId}"]["get"]["responses"]

    assert {"Location", "Retry-After", "Idempotent-Replayed"} < set(submit)
    assert {"ETag", "Retry-After", "Preference-Applied", "Cache-Control"} < set(get["304"]["headers"])
    assert "WWW-Authenticate" in document["components"]["responses"]["unauthenticated"]["headers"]
    refused = document["paths"]["/v1/tasks"]["post"]["responses"]["429"]
    assert "`queue-depth-exceeded`" in refused["description"]
    assert "Retry-After" in refused["headers"]


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/v1/tasks", "post", {202, 400, 401, 403, 409, 413, 415, 422, 429, 500, 503}),
        ("/v1/tasks/{taskId}", "get", {200, 304, 401, 403, 404, 410, 429, 500, 503}),
        ("/v1/tasks", "get", {200, 401, 403, 422, 429, 500, 503}),
        ("/livez", "get", {200, 500}),
        ("/v1/dead-letters/{taskId}", "delete", {204, 401, 403, 404, 429, 500, 503}),
    ],
)
def test_the_statuses_of_the_contract_are_documented(document, path, method, statuses):
    assert statuses == {int(status) for status in document["paths"][path][method]["responses"] if status != "4XX"}


def test_each_task_type_is_a_variant_of_the_submit_body(document):
    schemas = document["components"]["schemas"]

    assert {"greet", "robot.tidy"} == set(schemas["SubmitBody"]["discriminator"]["mapping"])
    assert schemas["SubmitBodyGreet"]["properties"]["type"] == {"const": "greet"}
    assert "notBefore" in schemas["Greeting"]["properties"]


@pytest.mark.parametrize(
    ("entries", "security"), [((), [{"apiKey": []}, {}]), ((f"a:{'0' * 64}:tasks:read",), [{"apiKey": []}])]
)
def test_a_key_is_asked_for_only_where_keys_are_configured(entries, security):
    found = World(options={"api_keys": entries, "api_key_pepper": "p"}).client().get("/openapi.json").json

    assert found["paths"]["/v1/tasks"]["post"]["security"] == security
    assert found["paths"]["/livez"]["get"]["security"] == []


def test_operation_ids_are_unique_and_every_component_is_used(document):
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]

    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    unused = [
        f"#/components/{kind}/{name}"
        for kind, components in document["components"].items()
        for name in components
        if kind != "securitySchemes" and f'"#/components/{kind}/{name}"' not in text
    ]
    assert unused == []


def test_a_components_name_is_one_that_generators_of_clients_take(document):
    """An object without a schema of its own is named after its parent and its property, which may be another component's name."""
    schemas = document["components"]["schemas"]
    inline = {
        f"{name}{prop[:1].upper()}{prop[1:]}"
        for name, schema in schemas.items()
        for prop, described in schema.get("properties", {}).items()
        if described.get("type") == "object"
    }

    assert [name for name in schemas if not re.fullmatch(r"[A-Za-z0-9._]+", name)] == []
    assert inline & set(schemas) == set()


def test_every_error_that_an_operation_may_answer_is_explained(document):
    named = set(re.findall(r"/problems/([a-z-]+)", json.dumps(document["paths"])))
    shared = set(document["components"]["responses"])

    assert named | shared <= {*problems.KINDS, "refused"}
    # What no operation answers belongs to paths and methods that are not there, and to the console.
    assert set(problems.KINDS) - named - shared == {"method-not-allowed", "forged-request"}


def test_query_parameters_keep_their_limits_and_descriptions(document):
    found = {one["name"]: one for one in document["paths"]["/v1/tasks"]["get"]["parameters"] if "name" in one}

    assert (
        found["limit"]["schema"], found["limit"]["description"],
    ) == ({"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "Maximum of items on a page.")  # fmt: skip
    assert found["status"]["schema"]["enum"] == ["PENDING", "RUNNING", "SUCCESS", "FAIL"]


def test_tolerant_headers_have_no_pattern(document):
    parameters = document["components"]["parameters"]

    assert not any("pattern" in parameters[name]["schema"] for name in ("X-Request-Id", "Prefer", "If-None-Match"))
