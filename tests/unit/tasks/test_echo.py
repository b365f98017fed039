"""echo: the smoke and failure-drill task."""

import pydantic
import pytest

from dispatch.errors import PermanentError, RetryableError
from support.cases import each
from support.context import FakeContext
from tasks.echo import Echo, echo


def test_it_returns_the_message_and_the_attempt():
    result = echo(Echo.model_validate({"message": "hi"}), FakeContext(attempt=3))

    assert result == {"message": "hi", "attempt": 3}


def test_it_fails_the_first_attempts_and_then_succeeds():
    order = Echo.model_validate({"message": "hi", "failTimes": 2})

    for attempt in (1, 2):
        with pytest.raises(RetryableError) as caught:
            echo(order, FakeContext(attempt=attempt))
        assert caught.value.type == "echo-failed"
    assert echo(order, FakeContext(attempt=3))["attempt"] == 3


def test_it_fails_for_good_when_permanent_is_set():
    with pytest.raises(PermanentError) as caught:
        echo(Echo.model_validate({"message": "hi", "permanent": True}), FakeContext())

    assert caught.value.type == "echo-refused"


def test_it_reports_progress_while_it_sleeps():
    context = FakeContext()

    echo(Echo.model_validate({"message": "hi", "sleepSeconds": 0.02}), context)

    percents = [percent for percent, _ in context.reports]
    assert percents == sorted(percents)
    assert percents[-1] == 100


def test_it_stops_when_cancelled_while_it_sleeps():
    context = FakeContext(cancel=lambda ctx: len(ctx.reports) >= 2)

    with pytest.raises(PermanentError) as caught:
        echo(Echo.model_validate({"message": "hi", "sleepSeconds": 0.05}), context)

    assert caught.value.type == "cancelled"
    assert len(context.reports) == 2


def test_a_whole_number_of_seconds_is_accepted():
    assert Echo.model_validate({"message": "hi", "sleepSeconds": 2}).sleep_seconds == 2.0


@each(
    "payload",
    [
        {},
        {"message": 1},
        {"message": "x" * 10_001},
        {"message": "hi", "sleepSeconds": -1},
        {"message": "hi", "sleepSeconds": 3_601},
        {"message": "hi", "sleepSeconds": float("nan")},
        {"message": "hi", "sleepSeconds": True},
        {"message": "hi", "sleepSeconds": "1"},
        {"message": "hi", "failTimes": 1.5},
        {"message": "hi", "failTimes": -1},
        {"message": "hi", "permanent": 1},
        {"message": "hi", "unknown": 1},
    ],
)
def test_other_payloads_are_refused(payload):
    with pytest.raises(pydantic.ValidationError):
        Echo.model_validate(payload)
