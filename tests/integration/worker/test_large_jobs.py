"""Jobs that are larger than the pipe to a child, between small ones."""

from dispatch.protocol.record import State
from support.worker import open_bench, running_worker

LARGE = "\N{ROBOT FACE}" * 10_000  # 120 kB on the wire: twelve bytes each


def test_a_job_that_does_not_fit_into_a_pipe_at_once_runs_as_any_other(settings):
    with open_bench(settings) as bench, running_worker(settings, abrupt=True):
        texts = ["small", LARGE] * 6
        ids = [bench.submit("echo", {"message": text}) for text in texts]
        records = [bench.finished(task_id, 40) for task_id in ids]

    assert {record.state for record in records} == {State.SUCCEEDED}
    assert [record.result["message"] for record in records] == texts
    assert {record.attempt for record in records} == {1}
