"""What a failed attempt carries to the main process."""

from celery import Celery
from celery.app.trace import trace_task

from dispatch.broker.celery_task import DispatchTask
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind


def test_a_failure_carries_its_traceback_as_text_only():
    app = Celery("test", task_cls=DispatchTask, set_as_current=False)

    @app.task(name="breaks", shared=False)
    def breaks():
        raise AttemptFailed.of(Failure(FailureKind.RETRYABLE, "broken", "it broke"))

    app.finalize()
    info = trace_task(breaks, "an-id", [], {}, {"id": "an-id", "delivery_info": {}}, app=app).retval

    assert isinstance(info.exception, AttemptFailed)
    assert "in breaks" in info.traceback
    assert info.tb is None
