"""What the client makes of answers, also of those of a later API, and of what is none."""

import datetime as dt
import pickle

import httpx
import pytest

from robot_dispatch_client import (
    ApiError,
    Conflict,
    ConnectionFailed,
    FieldError,
    NotFound,
    Problem,
    Task,
    TaskFailed,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
    UnknownTaskType,
    WaitTimeout,
    errors,
)
from support.api_clients import Script, ended, refused, task
from support.cases import each


def test_unknown_members_states_and_kinds_are_kept(client_of):
    body = task(
        state="TELEPORTING", status="RUNNING", fromTheFuture={"a": 1}, progress={"percent": 5, "message": "", "eta": 9}
    )
    client = client_of(
        Script(httpx.Response(200, json=body), httpx.Response(200, json=[{"seq": 1, "kind": "beamed", "to": "x"}]))
    )
    found, (hop,) = client.get("a"), client.events("a")

    assert (found.state, found.done, found.model_extra) == ("TELEPORTING", False, {"fromTheFuture": {"a": 1}})
    assert found.progress.model_extra == {"eta": 9}
    assert (hop.kind, hop.details) == ("beamed", {"to": "x"})


def test_members_that_an_older_gateway_lacks_have_defaults(client_of):
    found = client_of(Script(httpx.Response(200, json={"taskId": "a", "status": "SUCCESS", "state": "SUCCEEDED"}))).get(
        "a"
    )

    assert (found.done, found.succeeded, found.labels, found.wakes_at) == (True, True, {}, None)


def test_times_are_aware_and_names_are_pythons(client_of):
    found = client_of(Script(httpx.Response(200, json=task(createdAt="2026-11-24T02:36:00.500Z", maxAttempts=4)))).get(
        "a"
    )

    assert found.created_at == dt.datetime(2026, 11, 24, 2, 36, 0, 500_000, dt.UTC)
    assert found.max_attempts == 4


@each(
    ("status", "kind"),
    [
        (404, NotFound),
        (410, NotFound),
        (409, Conflict),
        (429, TooManyRequests),
        (503, Unavailable),
        (502, Unavailable),
        (418, ApiError),
    ],
)
def test_an_unknown_slug_is_an_error_of_its_status(client_of, status, kind):
    with pytest.raises(kind) as caught:
        client_of(Script(refused(status, "of-a-later-version", 300))).cancel("a")

    assert (caught.value.problem.slug, caught.value.status) == ("of-a-later-version", status)


@each("body", [b"", b"<html>", b"[1]", b'"x"', b'{"type": 7, "errors": [7], "detail": null}', b"\xff\xfe"])
def test_any_body_of_a_refusal_makes_an_error(client_of, body):
    with pytest.raises(NotFound) as caught:
        client_of(Script(httpx.Response(404, content=body, headers={"X-Request-Id": "rq-7"}))).get("a")

    assert (caught.value.status, caught.value.request_id, caught.value.errors) == (404, "rq-7", ())


@each(
    "answer",
    [
        httpx.Response(200, text="<html>log in, secret-of-a-page</html>"),
        httpx.Response(200, json={"secret-of-a-page": 1}),
        httpx.Response(200, json=task(attempt="secret-of-a-page")),
        httpx.Response(204),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/secret-of-a-page"}),
        httpx.DecodingError("Error -3 while decompressing data"),
    ],
)
def test_what_is_none_of_the_apis_answers_is_an_error_without_its_text(client_of, answer):
    script = Script(answer)
    with pytest.raises(UnexpectedResponse) as caught:
        client_of(script).get("a")

    assert "secret-of-a-page" not in str(caught.value)
    assert len(script.requests) == 1
    assert caught.value.request_id


def test_members_of_a_problem_are_at_hand(client_of):
    with pytest.raises(UnknownTaskType) as caught:
        client_of(Script(refused(422, "unknown-task-type", nearest=["echo"], later=1))).submit("ehco", {})

    assert (caught.value.nearest, caught.value.problem.members["later"]) == (["echo"], 1)


def test_errors_survive_a_pickle():
    failed = Task.model_validate(
        task(status="FAIL", state="DEAD_LETTERED", error={"type": "robot-failed", "detail": "stuck"})
    )
    refusal = errors.of_problem(Problem(404, "/problems/task-not-found", errors=(FieldError("/a", "b", "c"),)))
    refusal.idempotency_key = "k"
    for error in (refusal, WaitTimeout(failed), TaskFailed(failed), ConnectionFailed("cut", unsent=True)):
        copy = pickle.loads(pickle.dumps(error))

        assert (type(copy), str(copy), copy.idempotency_key) == (type(error), str(error), error.idempotency_key)
        assert vars(copy) == vars(error)


def test_a_failure_can_be_raised():
    failed = Task.model_validate(
        task(status="FAIL", state="DEAD_LETTERED", error={"type": "robot-failed", "detail": "stuck"})
    )
    with pytest.raises(TaskFailed, match="DEAD_LETTERED: robot-failed: stuck"):
        failed.raise_for_failure()

    assert Task.model_validate(ended(result=7)).raise_for_failure().result == 7
