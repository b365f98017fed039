"""The OpenAPI 3.1 document, built from the operations' contracts, their pydantic models and the problem kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pydantic
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema

from dispatch import __version__
from dispatch.gateway.contract import examples, request_models, response_models
from dispatch.gateway.http import headers, problems
from dispatch.gateway.http.operations import Operation, ResponseSpec
from dispatch.protocol.record import State
from dispatch.tasktypes.registry import TaskType

_REF = "#/components/schemas/{model}"

_TEXT = {"type": "string"}

#: Without patterns: an invalid X-Request-Id or Prefer is replaced or ignored, never rejected.
REQUEST_HEADERS: Mapping[str, dict[str, Any]] = {
    "Idempotency-Key": {
        "description": "Makes a repeated request safe: the same Idempotency-Key and body return the same task. "
        "1 to 255 visible ASCII characters, quoted or bare; retained as long as the task's record.",
        "schema": {**_TEXT, "minLength": 1, "maxLength": headers.MAX_IDEMPOTENCY_KEY, "pattern": r"^[\x21-\x7e]+$"},
        "example": "5d3f9a5e-6a0c-4f7e-9d57-0c3c1b3f6a11",
    },
    "Prefer": {
        "description": f"`wait=N` waits up to N seconds (at most {headers.MAX_WAIT}) for a change (RFC 7240).",
        "schema": _TEXT,
        "example": "wait=20",
    },
    "If-Match": {
        "description": "Only this revision is changed: the ETag that was read.",
        "schema": _TEXT,
        "example": '"1795487760000"',
    },
    "If-None-Match": {
        "description": "304 while the task has this ETag; `*` of a `PUT`: only what is new is created.",
        "schema": _TEXT,
        "example": '"4"',
    },
    "Last-Event-ID": {"description": "The stream resumes after this event.", "schema": _TEXT, "example": "3"},
    "X-Request-Id": {
        "description": "For correlation only. Up to 128 of `A-Za-z0-9._~-`; anything else is replaced.",
        "schema": _TEXT,
        "example": "rq-0002",
    },
    "traceparent": {"description": "W3C Trace Context; continued when valid.", "schema": _TEXT},
}

RESPONSE_HEADERS: Mapping[str, dict[str, Any]] = {
    "X-Request-Id": {"description": "That of the request, or a new one.", "required": True, "schema": _TEXT},
    "Location": {
        "description": "The task's status URL.",
        "required": True,
        "schema": {**_TEXT, "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds until the client should poll or retry; not on ended tasks.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Idempotent-Replayed": {
        "description": "`true` when an earlier request submitted the task.",
        "schema": {"const": "true"},
    },
    "ETag": {"description": "The revision, quoted.", "required": True, "schema": _TEXT},
    "Cache-Control": {"description": "Always `private, no-cache`.", "required": True, "schema": _TEXT},
    "Preference-Applied": {"description": "`wait=N` when the preference was applied.", "schema": _TEXT},
    "RateLimit-Policy": {
        "description": "The principal's quotas: `principal`, requests (`q`) within seconds (`w`); for a submission also `open-tasks`, `stored-bytes` and `dead-letters`. As in the IETF's draft 10.",
        "schema": _TEXT,
    },
    "RateLimit": {
        "description": "What is left of each quota (`r`); that of requests is full again in `t` seconds.",
        "schema": _TEXT,
    },
    "WWW-Authenticate": {"description": "A Bearer challenge (RFC 6750).", "required": True, "schema": _TEXT},
}

#: Groups of operations.
TAGS: Mapping[str, str] = {
    "Tasks": "Submit tasks and follow them.",
    "Callbacks": "How systems without an API key signal a task, by a URL that they were given for it.",
    "Task types": "What may be submitted.",
    "Schedules": "What is submitted again and again.",
    "Dead letters": "What failed for good: look at it, run it again, or discard it.",
    "Operators": "Stop tasks that have not ended, and let them go on.",
    "Queues": "What waits where.",
    "Workers": "Which workers run.",
    "Audit": "What operators did, and what was refused.",
    "Health": "For probes and for monitoring; without an API key.",
    "About": "Pages about the gateway and its API; without an API key.",
}

#: The component of what any operation may answer.
_REFUSED = "refused"

#: States that no task of this version reaches; workers know them, since a later version's may.
_RESERVED: frozenset[State] = frozenset()

_QUOTA = ("RateLimit-Policy", "RateLimit")

_DESCRIPTION = """\
Submit tasks, follow them, redrive or discard dead letters.

The response is 202 only after the task is recorded and RabbitMQ has confirmed and routed its message: from then on it \
reaches SUCCESS or FAIL, whatever crashes. Every error is `application/problem+json` (RFC 9457); its `type` is the URL \
of a page with the remedy. To follow a task, `GET` its `statusUrl` with `Prefer: wait=20`, or again after `Retry-After` \
seconds.\
"""


class _Schemas(GenerateJsonSchema):
    """JSON Schema 2020-12 without pydantic's generated field titles, which only repeat the names.

    A component's name is its model's without the suffix `Model`.
    """

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name.removesuffix("Model"))

    def enum_schema(self, schema: Any) -> JsonSchemaValue:
        """Without the states that no task of this version reaches."""
        described = super().enum_schema(schema)
        if schema["cls"] is State:
            described["enum"] = [state for state in described["enum"] if state not in _RESERVED]
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


def document(operations: Iterable[Operation], types: Mapping[str, TaskType], *, keyed: bool = True) -> dict[str, Any]:
    """The OpenAPI document.

    Args:
        operations: contracts of the operations served.
        types: task types by name; each is a variant of the submit body.
        keyed: whether API keys are required.

    Returns:
        The document, JSON-ready.
    """
    contracts = list(operations)
    schemas, refs = _schemas(contracts, types)
    paths: dict[str, Any] = {}
    for contract in contracts:
        described = _operation(contract, refs)
        described["security"] = _security(contract, keyed=keyed)
        if contract.body is request_models.SubmitBody:
            described["requestBody"]["content"]["application/json"]["examples"] = examples.submissions(types)
        paths.setdefault(contract.path, {})[contract.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Robot Dispatch",
            "version": __version__,
            "description": _DESCRIPTION,
            "contact": {"name": "The operators of this gateway"},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, "description": TAGS[tag]} for tag in dict.fromkeys(contract.tag for contract in contracts)
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": dict(RESPONSE_HEADERS),
            "parameters": {name: {"name": name, "in": "header", **spec} for name, spec in REQUEST_HEADERS.items()},
            "responses": _used(
                {_REFUSED: _refused(refs)} | {slug: _problem(kind, refs) for slug, kind in problems.KINDS.items()},
                paths,
            ),
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "rk_<id>_<secret>",
                    "description": "Created by `dispatch keys new`."
                    + ("" if keyed else " Not required here: the API serves loopback clients only."),
                }
            },
        },
    }


def _security(contract: Operation, *, keyed: bool) -> list[dict[str, list[str]]]:
    """Empty where no key is needed: an absent member would mean the document's default."""
    if contract.scope is None:
        return []
    return [{"apiKey": []}] if keyed else [{"apiKey": []}, {}]


def _used(responses: dict[str, Any], paths: dict[str, Any]) -> dict[str, Any]:
    """The components that an operation refers to; the others share a status, and are in its description."""
    found = {
        response.get("$ref", "").rpartition("/")[2]
        for methods in paths.values()
        for described in methods.values()
        for response in described["responses"].values()
    }
    return {slug: response for slug, response in responses.items() if slug in found}


def slugs(contract: Operation) -> list[str]:
    """Every problem of an operation: its own, and those implied by its scope, body and query.

    Args:
        contract: the operation.

    Returns:
        Slugs, by status.
    """
    result = [*contract.problems, "internal-error"]
    if contract.scope:
        result += ["unauthenticated", "insufficient-scope", "quota-exceeded", "keys-unavailable"]
    if contract.scope and not contract.path.startswith(("/v1/task-types", "/v1/queues")):
        result.append("store-unavailable")
    if contract.body:
        result += ["malformed-json", "validation-error", "unsupported-media-type", "body-too-large"]
    if contract.query:
        result.append("validation-error")
    return sorted(dict.fromkeys(result), key=lambda slug: problems.KINDS[slug].status)


# --- schemas -------------------------------------------------------------------------------------
Refs = Mapping[Any, JsonSchemaValue]


def _schemas(contracts: Sequence[Operation], types: Mapping[str, TaskType]) -> tuple[dict[str, Any], Refs]:
    inputs = [contract.body for contract in contracts if contract.body] + [kind.payload for kind in types.values()]
    responses = [response.model for contract in contracts for response in contract.responses if response.model]
    outputs: list[type[pydantic.BaseModel]] = [response_models.ProblemModel, response_models.EventModel]
    outputs += [model for model in responses if isinstance(model, type) and issubclass(model, pydantic.BaseModel)]
    described: list[tuple[type[pydantic.BaseModel], JsonSchemaMode]] = []
    described += [(model, "validation") for model in dict.fromkeys(inputs)]
    described += [(model, "serialization") for model in dict.fromkeys(outputs)]
    keyed, definitions = models_json_schema(described, by_alias=True, ref_template=_REF, schema_generator=_Schemas)
    refs: dict[Any, JsonSchemaValue] = {model: ref for (model, _), ref in keyed.items()}
    refs[list[response_models.EventModel]] = {"type": "array", "items": refs[response_models.EventModel]}
    schemas: dict[str, Any] = dict(definitions["$defs"])
    if request_models.SubmitBody in refs:
        name = refs[request_models.SubmitBody]["$ref"].rpartition("/")[2]
        schemas |= _variants(schemas.pop(name), name, types, refs)
    return schemas, refs


def _variants(envelope: dict[str, Any], name: str, types: Mapping[str, TaskType], refs: Refs) -> dict[str, Any]:
    """One submit body for each task type; `type` is the discriminator."""
    components = examples.component_names(name, types)
    variants = {
        components[kind.name]: {
            **envelope,
            "title": components[kind.name],
            "description": kind.summary,
            "properties": {**envelope["properties"], "type": {"const": kind.name}, "payload": refs[kind.payload]},
        }
        for kind in types.values()
    }
    mapping = {kind: _REF.format(model=component) for kind, component in components.items()}
    union = {
        "description": envelope.get("description", ""),
        "oneOf": [{"$ref": ref} for ref in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    return {name: union if variants else envelope, **variants}


# --- operations ----------------------------------------------------------------------------------
def _operation(contract: Operation, refs: Refs) -> dict[str, Any]:
    result: dict[str, Any] = {"operationId": contract.id, "tags": [contract.tag], "summary": contract.summary}
    other = f" or `{contract.or_scope}`" if contract.or_scope else ""
    scope = f"Requires the scope `{contract.scope}`{other}." if contract.scope else ""
    description = " ".join(filter(None, [contract.description, scope]))
    result["description"] = description or f"{contract.summary}."
    result["parameters"] = _parameters(contract)
    if contract.body:
        content = {"application/json": {"schema": refs[contract.body]}}
        result["requestBody"] = {"required": contract.body_required, "content": content}
    always = ("X-Request-Id", *(_QUOTA if contract.scope else ()))
    success = {str(response.status): _response(response, refs, always) for response in contract.responses}
    anywhere = {"4XX": {"$ref": f"#/components/responses/{_REFUSED}"}}
    result["responses"] = success | _problems(contract, refs) | anywhere
    return result


def _parameters(contract: Operation) -> list[dict[str, Any]]:
    path = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": _TEXT}
        for part in contract.path.split("/")
        if part.startswith("{")
    ]
    names = [*contract.headers, "X-Request-Id", "traceparent"]
    return [*path, *_query(contract.query), *({"$ref": f"#/components/parameters/{name}"} for name in names)]


def _query(model: type[pydantic.BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = _inlined(model.model_json_schema(by_alias=True, schema_generator=_Schemas))
    parameters = []
    for name, spec in schema["properties"].items():
        branch = next((branch for branch in spec.get("anyOf", []) if branch.get("type") != "null"), spec)
        parameter_schema = {key: value for key, value in branch.items() if key != "description"}
        if spec.get("default") is not None:
            parameter_schema["default"] = spec["default"]
        parameter = {"name": name, "in": "query", "required": False, "schema": parameter_schema}
        description = spec.get("description") or branch.get("description")
        parameters.append(parameter | ({"description": description} if description else {}))
    return parameters


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its `$defs` inlined: a parameter cannot have `$defs`."""
    definitions = schema.pop("$defs", {})

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return walk(definitions[value["$ref"].rpartition("/")[2]])
            return {key: walk(child) for key, child in value.items()}
        return [walk(child) for child in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = walk(schema)
    return inlined


def _response(response: ResponseSpec, refs: Refs, always: Sequence[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "description": response.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in (*always, *response.headers)},
    }
    if response.model is not None:
        schema = refs.get(response.model) or pydantic.TypeAdapter(response.model).json_schema()
        result["content"] = {response.media_type: {"schema": schema}}
    if response.also:
        result["content"][response.also] = {"schema": _TEXT}
    return result


def _problems(contract: Operation, refs: Refs) -> dict[str, Any]:
    """One response for each status; the description lists the problems that share it."""
    by_status: dict[str, list[str]] = {}
    for slug in slugs(contract):
        by_status.setdefault(str(problems.KINDS[slug].status), []).append(slug)
    return {
        status: {"$ref": f"#/components/responses/{shared[0]}"} if len(shared) == 1 else _several(shared, refs)
        for status, shared in by_status.items()
    }


def _several(shared: Sequence[str], refs: Refs) -> dict[str, Any]:
    kinds = [problems.KINDS[slug] for slug in shared]
    response_headers: dict[str, Any] = {}
    for kind in kinds:
        response_headers |= _problem(kind, refs)["headers"]
    return {
        "description": "\n".join(f"- `{kind.slug}`: {kind.title}." for kind in kinds),
        "headers": response_headers,
        "content": _content([kind.type for kind in kinds], refs),
    }


def _refused(refs: Refs) -> dict[str, Any]:
    return {
        "description": "The request was refused before its operation: its head or its framing is no valid HTTP (400), came "
        "too slowly (408), or is too long (414, 431). The `type` is `about:blank`.",
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
        "content": {problems.MEDIA_TYPE: {"schema": refs[response_models.ProblemModel]}},
    }


def _problem(kind: problems.ProblemKind, refs: Refs) -> dict[str, Any]:
    names = ["X-Request-Id"]
    if kind.status in {429, 503} or kind.slug == "idempotency-key-in-progress":
        names.append("Retry-After")
    if kind.status in {401, 403}:
        names.append("WWW-Authenticate")
    if kind.slug == "quota-exceeded":
        names += _QUOTA
    return {
        "description": f"`{kind.slug}`: {kind.title}. {kind.meaning} {kind.remedy}",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": _content([kind.type], refs),
    }


def _content(types: Sequence[str], refs: Refs) -> dict[str, Any]:
    narrowed = {"properties": {"type": {"enum": list(types)}}}
    return {problems.MEDIA_TYPE: {"schema": {"allOf": [refs[response_models.ProblemModel], narrowed]}}}
