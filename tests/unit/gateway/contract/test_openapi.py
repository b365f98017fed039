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
        if rule.endpoint != "static"
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
        "POST /v1/tasks", "GET /v1/tasks/{taskId}", "GET /v1/tasks", "GET /v1/tasks/{taskId}/events",
        "GET /v1/task-types", "GET /v1/task-types/{name}", "GET /v1/queues", "GET /v1/queues/{name}", "GET /v1/workers",
        "GET /v1/dead-letters", "GET /v1/dead-letters/{taskId}", "POST /v1/dead-letters/{taskId}/redrive",
        "POST /v1/dead-letters/redrive", "DELETE /v1/dead-letters/{taskId}", "GET /livez", "GET /readyz", "GET /metrics",
        "GET /openapi.json", "GET /docs", "GET /problems/{slug}",
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
    assert "Retry-After" in document["components"]["responses"]["queue-depth-exceeded"]["headers"]


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
    assert statuses == set(map(int, document["paths"][path][method]["responses"]))


def test_each_task_type_is_a_variant_of_the_submit_body(document):
    schemas = document["components"]["schemas"]

    assert {"greet", "robot.tidy"} == set(schemas["SubmitBody"]["discriminator"]["mapping"])
    assert schemas["SubmitBody.greet"]["properties"]["type"] == {"const": "greet"}
    assert "notBefore" in schemas["Greeting"]["properties"]


@pytest.mark.parametrize(
    ("entries", "security"), [((), [{"apiKey": []}, {}]), ((f"a:{'0' * 64}:tasks:read",), [{"apiKey": []}])]
)
def test_a_key_is_asked_for_only_where_keys_are_configured(entries, security):
    found = World(options={"api_keys": entries, "api_key_pepper": "p"}).client().get("/openapi.json").json

    assert found["paths"]["/v1/tasks"]["post"]["security"] == security
    assert "security" not in found["paths"]["/livez"]["get"]


def test_operation_ids_are_unique_and_every_kind_is_a_response(document):
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]

    assert len(ids) == len(set(ids))
    assert set(problems.KINDS) == set(document["components"]["responses"])


def test_query_parameters_keep_their_limits_and_descriptions(document):
    found = {one["name"]: one for one in document["paths"]["/v1/tasks"]["get"]["parameters"] if "name" in one}

    assert (
        found["limit"]["schema"], found["limit"]["description"],
    ) == ({"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "Maximum of items on a page.")  # fmt: skip
    assert found["status"]["schema"]["enum"] == ["PENDING", "RUNNING", "SUCCESS", "FAIL"]


def test_tolerant_headers_have_no_pattern(document):
    parameters = document["components"]["parameters"]

    assert not any("pattern" in parameters[name]["schema"] for name in ("X-Request-Id", "Prefer", "If-None-Match"))
