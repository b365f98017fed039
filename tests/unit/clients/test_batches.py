"""Submitting many tasks at once."""

import json

import httpx
import pytest

from robot_dispatch_client import (
    BrokerUnavailable,
    ConnectionFailed,
    IdempotencyKeyReused,
    QueueDepthExceeded,
    RetryPolicy,
    Submission,
    Unauthenticated,
    UnexpectedResponse,
    ValidationFailed,
    batches,
)
from support.api_clients import Script, refused, task


def submissions(count):
    return [Submission(type="echo", payload={"number": number}) for number in range(count)]


def items(request):
    return json.loads(request.content)["items"]


def verdict(status=202, slug="", retry_after=None, **members):
    problem = {"type": f"/problems/{slug}", "status": status, "retryAfter": retry_after} if slug else None
    return {"status": status, "replayed": False, "task": None if slug else task(**members), "problem": problem}


def verdicts(*given):
    return httpx.Response(207, json={"items": list(given)})


def every(request):
    """202 for each."""
    return verdicts(*[verdict(task_id=f"id-{item['payload']['number']}") for item in items(request)])


def test_many_are_one_request_with_a_key_each(client_of):
    given = submissions(3)
    client = client_of(script := Script(every))
    found = client.submit_many(given)

    assert [each.unwrap().task_id for each in found] == ["id-0", "id-1", "id-2"]
    assert [each.submission for each in found] == given
    assert [item["idempotencyKey"] for item in items(script.requests[0])] == [each.idempotency_key for each in given]
    assert len(script.requests) == 1
    assert client.submit_many([]) == []


def test_batches_are_bounded_in_items_and_bytes(client_of, monkeypatch):
    script = Script(every)
    client_of(script).submit_many(submissions(batches.MAX_ITEMS + 1))
    assert [len(items(request)) for request in script.requests] == [500, 1]
    monkeypatch.setattr(batches, "MAX_BYTES", 300)
    client_of(script := Script(every)).submit_many(submissions(8))

    assert all(len(request.content) < 320 for request in script.requests)
    assert sum(len(items(request)) for request in script.requests) == 8


def test_only_what_was_refused_for_the_moment_is_sent_again(client_of, clock):
    script = Script(
        verdicts(verdict(), verdict(429, "queue-depth-exceeded", 3), verdict(422, "validation-error"), verdict(503, "publish-unconfirmed", 1)),
        verdicts(verdict(409, "idempotency-key-in-progress", 1), verdict()),
        verdicts(verdict()),
    )  # fmt: skip
    given = submissions(4)
    found = client_of(script).submit_many(given)

    assert [each.task is not None for each in found] == [True, True, False, True]
    assert isinstance(found[2].error, ValidationFailed)
    sent = [[item["idempotencyKey"] for item in items(request)] for request in script.requests]
    keys = [each.idempotency_key for each in given]
    assert sent == [keys, [keys[1], keys[3]], [keys[1]]]
    assert 3 <= clock.slept[0] < 5


def test_what_stays_refused_has_its_last_reason(client_of):
    script = Script(
        verdicts(verdict(429, "queue-depth-exceeded", 100), verdict(503, "broker-unavailable", 1)), verdicts(verdict())
    )
    full, accepted = client_of(script).submit_many(submissions(2))

    assert (type(full.error), full.error.retry_after, accepted.task is None) == (QueueDepthExceeded, 100, False)
    with pytest.raises(QueueDepthExceeded):
        full.unwrap()


@pytest.mark.parametrize(
    "failure", [httpx.ReadError("cut"), refused(503, "gateway-busy", 1), httpx.Response(504)], ids=str
)
def test_a_batch_that_had_no_answer_is_repeated_with_the_same_keys(client_of, failure):
    script = Script(failure, every)
    client_of(script).submit_many(submissions(2))
    first, second = script.requests

    assert first.content == second.content


def test_a_first_request_that_fails_as_a_whole_raises(client_of):
    for answer, error in (
        (refused(401, "unauthenticated"), Unauthenticated),
        (httpx.ReadError("cut"), ConnectionFailed),
    ):
        with pytest.raises(error):
            client_of(Script(answer), retry=RetryPolicy(total=0)).submit_many(submissions(2))
    with pytest.raises(UnexpectedResponse):
        client_of(Script(verdicts(verdict()))).submit_many(submissions(2))


def test_a_later_request_that_fails_is_the_verdict_of_what_is_left(client_of, monkeypatch):
    monkeypatch.setattr(batches, "MAX_ITEMS", 2)
    script = Script(every, refused(503, "broker-unavailable", 1))
    given = submissions(5)
    found = client_of(script, retry=RetryPolicy(total=0)).submit_many(given)

    assert [each.task is not None for each in found] == [True, True, False, False, False]
    assert [type(each.error) for each in found[2:]] == [BrokerUnavailable] * 3
    assert [each.error.idempotency_key for each in found[2:]] == [each.idempotency_key for each in given[2:]]
    assert len(script.requests) == 2


def test_a_key_of_another_submission_is_its_items_error(client_of):
    found = client_of(Script(verdicts(verdict(422, "idempotency-key-reused"), verdict()))).submit_many(submissions(2))

    assert isinstance(found[0].error, IdempotencyKeyReused)
