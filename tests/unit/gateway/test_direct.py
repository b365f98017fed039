"""The frequent operations are carried out beside Flask: each response is Flask's, byte for byte."""

import dataclasses
import functools
import io
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from dispatch.config import api_keys
from dispatch.errors import InDoubt, Nacked, NotSent, StoreFull, StoreUnavailable, Unroutable
from dispatch.gateway.admission.allowance import Allowance
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.http.validation import WholeInput
from dispatch.protocol.record import ErrorInfo, State
from dispatch.store.idempotency import KeyInProgress, KeyReused
from support.cases import each
from support.gateway_fakes import FakeTasks, World, record

SECRET, OTHER = (api_keys.token(name, api_keys.new_secret()) for name in ("shop", "eye"))
PEPPER = "pepper"
TASK = record(
    task_id="019a0000-0000-7000-8000-000000000001", created_at=1_795_487_760_000, updated_at=1_795_487_760_000
)
DONE = dataclasses.replace(
    TASK, task_id="019a0000-0000-7000-8000-000000000002", state=State.SUCCEEDED, result={"ü": [1]}
)
WAITS = dataclasses.replace(
    TASK, task_id="done", state=State.RETRY_WAIT, error=ErrorInfo("x", "\u2028", retryable=True), request_id="rq"
)
OTHERS = dataclasses.replace(TASK, task_id="others", principal="bob")
BODY = json.dumps({"type": "greet", "payload": {"message": "hi"}}).encode()


def world(**changes):
    made = World(tasks=FakeTasks(TASK, DONE, WAITS, OTHERS), **changes)
    made.submitter.replayed = TASK
    return made


def fixed(text: bytes) -> bytes:
    """Without what is random: the ids of a request and of a trace."""
    return re.sub(rb"\b[0-9a-f]{32}\b", b"-", text)


def respond(app, environ):
    """What the server gets: status, headers, body."""
    seen = []
    parts = app(environ, lambda *head: seen.append(head))
    body = b"".join(parts)
    if hasattr(parts, "close"):
        parts.close()
    (status, headers), *_ = seen
    return status, [(name, fixed(value.encode()).decode()) for name, value in headers], fixed(body)


def both(made, method, path, *, raw=None, body=b"", query="", **headers):
    """A request's response directly, and by Flask; whether it was carried out directly."""
    app = made.app()
    return both_of(app, method, path, raw=raw, body=body, query=query, **headers)


def both_of(app, method, path, *, raw=None, body=b"", query="", **headers):
    """As `both`, by an application that is there."""
    answers, direct = [], []
    carry_out = app._direct.carry_out
    for flask_alone in (False, True):
        app._direct.carry_out = lambda *args, skip=flask_alone: None if skip else _noted(carry_out(*args), direct)
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "RAW_URI": path if raw is None else raw, "QUERY_STRING": query,
            "SCRIPT_NAME": "", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "HTTP_HOST": "127.0.0.1:8000",
            "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "wsgi.input": (io.BytesIO if flask_alone else WholeInput)(body),
            "wsgi.input_terminated": True, "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": "application/json", **headers,
        }  # fmt: skip
        answers.append(respond(app, environ))
    app._direct.carry_out = carry_out
    return answers[0], answers[1], bool(direct)


def _noted(result, direct):
    if result is not None:
        direct.append(1)
    return result


def check(made, *request, direct=True, **more):
    ours, flasks, directly = both(made, *request, **more)

    assert ours == flasks
    assert directly is direct
    return ours


GETS = [
    TASK.task_id,
    DONE.task_id,
    WAITS.task_id,
    OTHERS.task_id,
    "none-such",
    "019a0000-0000-7000-8000-00000000000f",
    "x" * 200,
    "a~b",
]


@each("task_id", GETS)
@each("known", [None, '"2"', 'W/"2"', "*", '"3"', "nonsense"])
def test_a_task_is_read_as_by_flask(task_id, known):
    more = {} if known is None else {"HTTP_IF_NONE_MATCH": known}

    check(world(), "GET", f"/v1/tasks/{task_id}", **more)


@each(
    "headers",
    [
        {"HTTP_X_REQUEST_ID": "rq-1"},
        {"HTTP_X_REQUEST_ID": "not one\x7f"},
        {"HTTP_TRACEPARENT": f"00-{'c' * 32}-{'d' * 16}-01"},
        {"HTTP_TRACEPARENT": "nonsense"},
        {"HTTP_AUTHORIZATION": "Bearer x"},
        {"HTTP_ORIGIN": "http://elsewhere"},
        {"HTTP_HOST": "elsewhere"},
        {"REMOTE_ADDR": "10.1.1.1"},
        {"HTTP_X_FORWARDED_FOR": "10.1.1.1"},
        {"wsgi.url_scheme": "https"},
        {"HTTP_ACCEPT": "text/event-stream"},
        {"HTTP_CONNECTION": "close"},
    ],
)
@each("options", [{}, {"http_hsts": 60, "trace_url": "https://t/{traceId}"}])
def test_headers_have_the_same_effect_as_in_flask(headers, options):
    check(world(options=options), "GET", f"/v1/tasks/{TASK.task_id}", **headers)
    check(world(options=options), "POST", "/v1/tasks", body=BODY, **headers)


@each(
    ("body", "headers"),
    [
        (BODY, {}),
        (BODY, {"HTTP_IDEMPOTENCY_KEY": "k"}),
        (BODY, {"HTTP_IDEMPOTENCY_KEY": "ü"}),
        (BODY, {"CONTENT_TYPE": "Application/JSON; charset=UTF-8"}),
        (BODY, {"CONTENT_TYPE": "application/json; charset=latin-1"}),
        (BODY, {"CONTENT_TYPE": "text/plain"}),
        (BODY, {"CONTENT_TYPE": ""}),
        (BODY, {"HTTP_CONTENT_ENCODING": "gzip"}),
        (b" " * 262_144 + BODY, {}),
        (BODY + b" " * (262_144 - len(BODY)), {}),
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b'{"type":"greet","payload":{"message":"\xff"}}', {}),
        (b'{"type":"gret","payload":{}}', {}),
        (b'{"type":"greet","payload":{"message":1,"x":2}}', {}),
        (b'{"type":"greet","type":"greet","payload":{}}', {}),
    ],
)
def test_a_body_is_taken_or_refused_as_by_flask(body, headers):
    check(world(), "POST", "/v1/tasks", body=body, **headers)


FAILURES = [
    Nacked(), Unroutable("x"), NotSent("x"), InDoubt("x"), StoreUnavailable(), StoreFull(), KeyInProgress(2.5), KeyReused(),
    Problem("quota-exceeded", retry_after=3), ValueError("a bug"),
]  # fmt: skip


@each("failure", FAILURES)
def test_an_error_has_the_response_that_flask_gives_it(failure):
    made = world()
    made.submitter.failure = made.tasks.failure = failure

    check(made, "POST", "/v1/tasks", body=BODY)
    check(made, "GET", f"/v1/tasks/{TASK.task_id}")


@each("header", [None, SECRET, OTHER, "rk_x_y", "nonsense"])
@each("failure", [None, Problem("quota-exceeded", retry_after=3, headers={"RateLimit": "r"})])
def test_keys_scopes_and_quotas_count_as_in_flask(header, failure):
    entries = [
        str(api_keys.ApiKey(name, api_keys.digest(PEPPER, key), frozenset(scopes)))
        for name, key, scopes in [("shop", SECRET, ["tasks:read", "tasks:write"]), ("eye", OTHER, ["queues:read"])]
    ]

    def spend(_principal):
        if failure:
            raise failure
        return {"RateLimit-Policy": "p", "RateLimit": "r"}

    made = world(
        spend=spend,
        allowance=lambda _: Allowance({"RateLimit": "s"}),
        options={"api_keys": entries, "api_key_pepper": PEPPER},
    )
    more = {} if header is None else {"HTTP_AUTHORIZATION": f"Bearer {header}"}

    check(made, "POST", "/v1/tasks", body=BODY, **more)
    check(made, "GET", f"/v1/tasks/{TASK.task_id}", **more)


@each(
    ("method", "path", "more"),
    [
        ("GET", f"/v1/tasks/{TASK.task_id}", {"query": "a=b", "raw": f"/v1/tasks/{TASK.task_id}?a=b"}),
        ("GET", f"/v1/tasks/{TASK.task_id}", {"raw": f"/v1/tasks/{TASK.task_id}?"}),
        ("GET", f"/v1/tasks/{TASK.task_id}", {"raw": f"/v1%2Ftasks/{TASK.task_id}"}),
        ("GET", f"/v1/tasks/{TASK.task_id}", {"HTTP_PREFER": "wait=0"}),
        ("GET", "//v1/tasks/x", {}),
        ("GET", f"/v1/tasks/{TASK.task_id}", {"HTTP_HOST": "."}),
        ("GET", "/v1/tasks/", {}),
        ("GET", "/v1/tasks/a/b", {}),
        ("GET", "/v1/tasks/Ã¼", {}),
        ("GET", "/v1/tasks", {}),
        ("HEAD", f"/v1/tasks/{TASK.task_id}", {}),
        ("OPTIONS", "/v1/tasks", {}),
        ("DELETE", "/v1/tasks", {}),
        ("POST", f"/v1/tasks/{TASK.task_id}", {}),
        ("POST", "/v1/tasks/", {}),
        ("GET", "/livez", {}),
    ],
)
def test_whatever_else_is_asked_is_asked_of_flask(method, path, more):
    check(world(), method, path, direct=False, **more)


@functools.cache
def app_of_all_examples():
    """No request changes what another gets."""
    return world().app()


printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)


@given(
    path=st.sampled_from([f"/v1/tasks/{one}" for one in GETS]) | st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x21), max_size=60).map(lambda text: f"/v1/tasks/{text}"),
    headers=st.dictionaries(
        st.sampled_from(
            [
                "HTTP_IF_NONE_MATCH", "HTTP_AUTHORIZATION", "HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT", "HTTP_ORIGIN", "HTTP_HOST",
                "HTTP_PREFER", "HTTP_ACCEPT", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA", "HTTP_COOKIE",
            ]
        ),
        printable,
        max_size=4,
    ),
)  # fmt: skip
def test_reads_of_any_kind_are_answered_the_same(path, headers):
    ours, flasks, _ = both_of(app_of_all_examples(), "GET", path, **headers)

    assert ours == flasks


@given(
    body=st.binary(max_size=40) | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)).map(
        lambda value: json.dumps({"type": "greet", "payload": value}).encode()
    ),
    key=st.none() | printable,
)  # fmt: skip
def test_submissions_of_any_kind_are_answered_the_same(body, key):
    more = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    ours, flasks, _ = both_of(app_of_all_examples(), "POST", "/v1/tasks", body=body, **more)

    assert ours == flasks


def test_a_body_that_is_not_read_is_drained_and_lingers_after_the_response():
    class Unread(io.BytesIO):
        unread = True
        lingered = False

        def drain(self):
            return False

        def linger(self):
            self.lingered = True

    made, body = world(), Unread(b"")
    status, _, _ = respond(
        made.app(),
        {
            "REQUEST_METHOD": "GET", "PATH_INFO": f"/v1/tasks/{TASK.task_id}", "RAW_URI": f"/v1/tasks/{TASK.task_id}",
            "QUERY_STRING": "", "SCRIPT_NAME": "", "wsgi.input": body, "wsgi.url_scheme": "http", "HTTP_HOST": "localhost",
        },
    )  # fmt: skip

    assert status == "200 OK"
    assert body.lingered
