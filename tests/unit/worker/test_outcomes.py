"""The failure that an exception of a handler stands for."""

from dispatch.errors import PermanentError, RetryableError, Throttled
from dispatch.protocol.retry import AttemptFailed, FailureKind
from dispatch.worker.outcomes import failure_of
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
def test_an_error_says_what_the_router_must_do(error, kind, name):
    failure = failure_of(error)

    assert (failure.kind, failure.type) == (kind, name)
    assert AttemptFailed.of(failure).failure == failure


@each("error", [PermanentError("x" * 10**6, type="t" * 10**6), type("E" * 10**6, (Exception,), {})()])
def test_a_failure_fits_into_the_headers_of_its_next_copy(error):
    failure = failure_of(error)

    assert len(failure.type) + len(failure.message) < 2_500
