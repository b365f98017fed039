"""A delivery in the main process: which headers a run sees, and which failure an error of Celery's is."""

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated

from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.worker.request import _failure, celery_headers
from support.cases import each
from support.unit_fakes import task_message

FAILURE = Failure(FailureKind.THROTTLED, "throttled", "busy", 7.0)


def test_a_run_sees_celerys_headers_as_text_and_ours_as_they_are():
    message = task_message(lang="py", root_id=7, parent_id=None, traceparent="00-x", tracestate="y", retries=2)

    assert celery_headers(message) == {
        "id": "t-1", "task": "echo", "lang": "py", "root_id": "7", "parent_id": None,
        "x-cycle": 0, "x-seq": 3, "x-attempt": 2, "x-principal": "ada", "x-accepted-at": 1_700_000_000_000,
        "traceparent": "00-x", "tracestate": "y", "retries": 2,
    }  # fmt: skip


@each("header", ["timelimit", "expires", "eta", "ignore_result", "stamps", "replaced_task_nesting", "reply_to"])
def test_a_header_of_the_sender_steers_no_run(header):
    assert header not in celery_headers(task_message(**{header: [1, 1]}))


@each("retries", ["3", None, True, [1]])
def test_a_counter_that_is_no_number_is_0(retries):
    assert celery_headers(task_message(retries=retries))["retries"] == 0


@each(
    ("error", "kind", "name"),
    [
        (AttemptFailed.of(FAILURE), FailureKind.THROTTLED, "throttled"),
        (TimeLimitExceeded(300), FailureKind.RETRYABLE, "time-limit"),
        (WorkerLostError("signal 9"), FailureKind.RETRYABLE, "worker-lost"),
        (Terminated(15), FailureKind.RETRYABLE, "worker-lost"),
        (SystemExit(1), FailureKind.RETRYABLE, "worker-lost"),
        (KeyboardInterrupt(), FailureKind.RETRYABLE, "worker-lost"),
        (ValueError("oops"), FailureKind.RETRYABLE, "ValueError"),
    ],
)
def test_the_failure_that_an_error_is(error, kind, name):
    failure = _failure(error)

    assert (failure.kind, failure.type) == (kind, name)


def test_a_failure_comes_through_with_the_time_that_was_asked_for():
    assert _failure(AttemptFailed.of(FAILURE)) == FAILURE
