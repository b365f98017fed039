"""A child's tracer: ours where nothing needs Celery's, and its outcomes are those that Celery reports."""

import pickle

import pytest
from celery import Celery, signals

from dispatch.protocol.message import MAX_TRACEBACK, Message
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind
from dispatch.telemetry import logs
from dispatch.worker import tracer
from dispatch.worker.outcomes import RESULT, WIRE, LeaseTaken

FAILURE = Failure(FailureKind.RETRYABLE, "boom", "it broke")

NO_LINKS = {"callbacks": None, "chain": None, "errbacks": None, "chord": None}


@pytest.fixture
def run(monkeypatch):
    """Traces one task, whose handler is a function of the payload; ``celery`` stands for Celery's own tracer."""
    app = Celery("test", set_as_current=False)
    app.conf.task_ignore_result = True
    monkeypatch.setattr(tracer, "_tasks", app.tasks)
    monkeypatch.setattr(tracer, "fast_trace_task", lambda *_: (0, "celery", 1.0))
    handlers = []

    @app.task(name="echo", bind=True, typing=False, shared=False)
    def echo(self, payload):
        assert self.request.id == "t-1"
        assert tracer._task_stack.top is self
        result = handlers[-1](payload)
        self.request.get(RESULT).append("{}")
        return result

    app.finalize()

    def trace(handler, links=NO_LINKS):
        handlers.append(handler)
        wire = Message(b"", {"id": "t-1", "task": "echo"})
        request = {"id": "t-1", "task": "echo", "hostname": "w@h", "headers": {}, WIRE: wire}
        return tracer.trace("echo", "t-1", request, [[{"n": 1}], {}, links])

    yield trace
    assert tracer._task_stack.top is None
    assert logs._about.get() is None


def test_a_result_is_shown_as_celery_shows_it(run):
    failed, shown, seconds, recorded = run(lambda payload: {"got": payload})
    long = run(lambda _: {"text": "x" * 5_000})[1]

    assert (failed, shown) == (0, "{'got': {'n': 1}}")
    assert 0 <= seconds < 10
    assert recorded == "{}"
    assert len(long) < 1_200


def test_what_a_child_reports_instead_of_a_result_is_reported(run):
    def taken(_):
        raise LeaseTaken("t-1")

    def broken(_):
        return 1 // 0

    (ignored, outcome, _), (failed, error, _) = run(taken), run(broken)

    assert (ignored, failed) == (1, 1)
    reported = [getattr(einfo.exception, "exc", einfo.exception) for einfo in (outcome, error)]
    assert [type(each) for each in reported] == [LeaseTaken, ZeroDivisionError]


def test_a_failed_attempt_is_reported_with_the_text_of_its_traceback_and_without_its_frames(run):
    def failing(_):
        try:
            return 1 // 0
        except ZeroDivisionError as exc:
            raise AttemptFailed.of(FAILURE) from exc

    failed, info, _ = run(failing)
    known = pickle.loads(pickle.dumps(info))

    assert failed == 1
    assert (known.exception.failure, known.tb, known.exception.__cause__) == (FAILURE, None, None)
    assert "ZeroDivisionError" in known.traceback
    assert known.traceback.rstrip().endswith("boom: it broke")
    assert (info.exception.__traceback__, info.exception.__cause__, info.exception.__context__) == (None, None, None)


def test_of_a_long_traceback_the_cause_is_left_to_the_log(run):
    def failing(_):
        try:
            return {}["x" * 2 * MAX_TRACEBACK]
        except KeyError as exc:
            raise AttemptFailed.of(FAILURE) from exc

    traceback = run(failing)[1].traceback

    assert len(traceback) < MAX_TRACEBACK
    assert "xxx" not in traceback
    assert traceback.rstrip().endswith("boom: it broke")


def test_celerys_own_tracer_runs_what_needs_it(run):
    def receiver(**_):
        pass

    chained = run(dict, links={**NO_LINKS, "chain": [{}]})
    observed = []
    for signal in (signals.task_prerun, signals.task_failure):
        signal.connect(receiver)
        try:
            observed.append(run(dict))
        finally:
            signal.disconnect(receiver)

    assert [chained, *observed] == [(0, "celery", 1.0)] * 3
    assert run(dict)[:2] == (0, "{'n': 1}")
