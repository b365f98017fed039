"""The failure that an exception of a handler stands for."""

import pickle
import traceback

from celery.exceptions import Ignore

from dispatch.errors import PermanentError, RetryableError, Throttled
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.worker.outcomes import ClaimUnanswered, DecidedBefore, LeaseTaken, NothingToDo, failure_of, reported
from support.cases import each


@each(
    ("error", "kind", "name"),
    [
        (PermanentError("no", type="bad-order"), FailureKind.PERMANENT, "bad-order"),
        (RetryableError("later", retry_after=3), FailureKind.RETRYABLE, "retryable"),
        (Throttled("busy"), FailureKind.THROTTLED, "throttled"),
        (ValueError("oops"), FailureKind.RETRYABLE, "ValueError"),
        (MemoryError(), FailureKind.RETRYABLE, "MemoryError"),
    ],
)
def test_an_error_determines_what_the_router_must_do(error, kind, name):
    failure = failure_of(error)

    assert (failure.kind, failure.type) == (kind, name)
    assert AttemptFailed.of(failure).failure == failure


@each("error", [PermanentError("x" * 10**6, type="t" * 10**6), type("E" * 10**6, (Exception,), {})()])
def test_a_failure_fits_into_the_headers_of_its_next_copy(error):
    failure = failure_of(error)

    assert len(failure.type) + len(failure.message) < 2_500


@each("outcome", [ClaimUnanswered("away"), LeaseTaken("t-1"), NothingToDo("DONE"), DecidedBefore("{}")])
def test_an_outcome_survives_the_way_to_the_main_process(outcome):
    again = pickle.loads(pickle.dumps(outcome))

    assert (type(again), again.args) == (type(outcome), outcome.args)
    assert isinstance(again, Ignore)


def test_a_failure_survives_the_way_to_the_main_process():
    failure = Failure(FailureKind.THROTTLED, "throttled", "busy", 7.0)

    assert pickle.loads(pickle.dumps(AttemptFailed.of(failure))).failure == failure
    assert str(AttemptFailed.of(failure)) == "throttled: busy"


def test_only_a_permanent_failure_is_not_retryable():
    retryable = {kind for kind in FailureKind if Failure(kind, "t", "m").retryable}

    assert retryable == set(FailureKind) - {FailureKind.PERMANENT}


def test_an_unknown_error_without_text_is_described_by_its_type():
    assert failure_of(ValueError()).message == "ValueError"


def test_the_time_that_was_asked_for_comes_along():
    assert failure_of(RetryableError("later", retry_after=3)).retry_after == 3
    assert failure_of(Throttled("busy", retry_after=4)).retry_after == 4
    assert failure_of(PermanentError("no")).retry_after is None


def _failed(number):
    return {}["x"] + 1 if number == 0 else _failed(number - 1)


def test_the_text_of_a_failure_is_pythons_without_the_marks_below_its_lines():
    try:
        try:
            _failed(2)
        except KeyError as exc:
            raise AttemptFailed.of(failure_of(exc)) from ExceptionGroup("several", [exc, ValueError("y")])
    except AttemptFailed as exc:
        marked, text = "".join(traceback.format_exception(exc)), reported(exc).traceback

    def unmarked(whole):
        return [line for line in whole.splitlines() if not line or not {*line} <= {" ", "|", "^", "~"}]

    assert text.splitlines() == unmarked(marked)
    assert len(text.splitlines()) < len(marked.splitlines())
    assert "AttemptFailed" in text
