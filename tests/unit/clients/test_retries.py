"""What is sent again, with what, and when."""

import httpx
import pytest

from robot_dispatch_client import (
    ApiError,
    ConnectionFailed,
    DispatchError,
    IdempotencyKeyInProgress,
    QueueDepthExceeded,
    RequestTimeout,
    RetryPolicy,
    ValidationFailed,
    errors,
)
from robot_dispatch_client.retries import Repeat, may_repeat
from support.api_clients import Script, accepted, refused, task
from support.cases import each

#: Failures after which the outcome of a request is unknown.
LOST = (
    httpx.ReadError("cut"),
    httpx.WriteError("cut"),
    httpx.ReadTimeout("late"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
)
#: Failures before it is sent.
UNSENT = (httpx.ConnectError("refused"), httpx.ConnectTimeout("late"), httpx.PoolTimeout("full"))


@pytest.mark.parametrize(
    "failure",
    [
        *LOST,
        *UNSENT,
        refused(503, "publish-unconfirmed", 1),
        refused(503, "broker-unavailable", 1),
        refused(503, "of-a-later-version"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(504, text=""),
        refused(429, "queue-depth-exceeded", 1),
        refused(409, "idempotency-key-in-progress", 1),
    ],
    ids=str,
)
def test_a_submission_is_repeated_with_its_key(client_of, clock, failure):
    script = Script(failure, failure, accepted())
    found = client_of(script).submit("echo", {"message": "hi"})

    assert found.state == "QUEUED"
    (key,), (request_id,) = set(script.sent("idempotency-key")), set(script.sent("x-request-id"))
    assert key
    assert request_id
    assert len({request.content for request in script.requests}) == 1
    assert (len(script.requests), len(clock.slept)) == (3, 2)


def test_every_submission_has_a_key_of_its_own_unless_one_is_given(client_of):
    script = Script(accepted())
    client = client_of(script)
    for key in (None, None, "order-1", '"quoted'):
        client.submit("echo", {}, idempotency_key=key)

    first, second, given, quoted = script.sent("idempotency-key")
    assert len({first, second}) == 2
    assert (given, quoted) == ("order-1", r'"\"quoted"')
    with pytest.raises(ValueError, match="visible ASCII"):
        client.submit("echo", {}, idempotency_key="two words")


@each(
    "answer",
    [
        refused(422, "validation-error"),
        refused(409, "idempotency-key-reused"),
        refused(401, "unauthenticated"),
        refused(500, "internal-error"),
        refused(413, "body-too-large"),
        refused(400, "of-a-later-version", 1),
        httpx.Response(200, text="<html>log in</html>"),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
    ],
)
def test_what_fails_again_is_sent_once(client_of, clock, answer):
    script = Script(answer)
    with pytest.raises(DispatchError):
        client_of(script).submit("echo", {})

    assert (len(script.requests), clock.slept) == (1, [])


@pytest.mark.parametrize(
    "failure", [*LOST, refused(503, "publish-unconfirmed", 1), refused(503, "store-unavailable", 1)], ids=str
)
def test_a_redrive_whose_effect_is_unknown_is_never_repeated(client_of, clock, failure):
    script = Script(failure)
    client = client_of(script)
    for verb in (lambda: client.redrive("a"), client.redrive_many, lambda: client.request("POST", "/v1/new")):
        with pytest.raises(DispatchError):
            verb()

    assert (len(script.requests), clock.slept) == (3, [])


@pytest.mark.parametrize(
    "failure", [*UNSENT, refused(429, "quota-exceeded", 1), refused(503, "gateway-busy", 1)], ids=str
)
def test_a_redrive_that_had_no_effect_is_repeated(client_of, failure):
    script = Script(failure, httpx.Response(202, json=task(cycle=1)))

    assert client_of(script).redrive("a").cycle == 1


@pytest.mark.parametrize("verb", ["get", "cancel", "retry_now", "discard", "events"])
def test_what_changes_nothing_more_is_repeated(client_of, verb):
    answer = httpx.Response(204) if verb == "discard" else httpx.Response(200, json=[] if verb == "events" else task())
    script = Script(LOST[0], refused(503, "store-unavailable", 1), answer)
    getattr(client_of(script), verb)("a")

    assert len(script.requests) == 3


def test_retry_after_is_waited_for_and_never_less(client_of, clock):
    script = Script(refused(429, "queue-depth-exceeded", 7), refused(503, "store-unavailable", 3), accepted())
    client_of(script).submit("echo", {})

    first, second = clock.slept
    assert 7 <= first < 8
    assert 3 <= second < 4


def test_a_call_ends_within_its_total_time(client_of, clock):
    script = Script(refused(503, "broker-unavailable", 2))
    with pytest.raises(ApiError):
        client_of(script, retry=RetryPolicy(total=20)).submit("echo", {})

    assert 15 < clock.now < 20


def test_a_retry_after_beyond_the_total_time_is_not_waited_for(client_of, clock):
    with pytest.raises(QueueDepthExceeded) as caught:
        client_of(Script(refused(429, "queue-depth-exceeded", 300))).submit("echo", {})

    assert (clock.slept, caught.value.retry_after) == ([], 300)


def test_without_retries_there_is_one_try(client_of):
    script = Script(httpx.ReadTimeout("late"))
    with pytest.raises(RequestTimeout) as caught:
        client_of(script, retry=RetryPolicy(total=0)).submit("echo", {}, idempotency_key="k", request_id="rq-9")

    assert len(script.requests) == 1
    assert (caught.value.idempotency_key, caught.value.request_id, caught.value.unsent) == ("k", "rq-9", False)


def test_a_failed_submission_has_the_key_to_go_on_with(client_of):
    with pytest.raises(ConnectionFailed) as caught:
        client_of(Script(httpx.ConnectError("refused"))).submit("echo", {})
    client_of(script := Script(accepted())).submit("echo", {}, idempotency_key=caught.value.idempotency_key)

    assert caught.value.unsent
    assert script.sent("idempotency-key") == [caught.value.idempotency_key]


def test_pauses_double_up_to_the_longest_and_have_jitter():
    policy = RetryPolicy(total=1_000, first=1, longest=10)

    def pause(tries, chance):
        return policy.pause(ConnectionFailed(), Repeat.SAFE, tries=tries, elapsed=0, chance=lambda: chance)

    assert [pause(tries, 1) for tries in (1, 2, 3, 4, 5, 5_000)] == [1, 2, 4, 8, 10, 10]
    assert [pause(tries, 0) for tries in (1, 2)] == [0.5, 1]


def test_a_key_in_progress_concerns_submissions_alone():
    failure = IdempotencyKeyInProgress(errors.Problem(409, "/problems/idempotency-key-in-progress"))

    assert [may_repeat(failure, repeat) for repeat in (Repeat.KEYED, Repeat.SAFE, Repeat.UNSENT)] == [
        True,
        False,
        False,
    ]


def test_a_request_that_the_http_library_refuses_is_not_repeated(client_of):
    script = Script(httpx.LocalProtocolError("Illegal header"))
    with pytest.raises(DispatchError) as caught:
        client_of(script).submit("echo", {})

    assert not isinstance(caught.value, ConnectionFailed)
    assert len(script.requests) == 1


def test_validation_errors_are_listed(client_of):
    listed = [{"pointer": "/payload/message", "detail": "Field required", "code": "missing"}]
    with pytest.raises(ValidationFailed) as caught:
        client_of(Script(refused(422, "validation-error", errors=listed))).submit("echo", {})

    assert [(error.pointer, error.code) for error in caught.value.errors] == [("/payload/message", "missing")]
    assert str(caught.value) == "422 validation-error: why (/payload/message: Field required)"
