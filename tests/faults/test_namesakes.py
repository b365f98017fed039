"""Two workers with the same node name: neither disturbs the other, and both receive commands."""

import uuid

from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import running_worker


def test_a_second_worker_of_the_same_name_does_not_disturb_the_first(bench):
    name = f"same-{uuid.uuid4().hex[:8]}@test"
    with (
        running_worker(bench.settings, "-n", name, abrupt=True) as first,
        running_worker(bench.settings, "-n", name, abrupt=True) as second,
    ):
        tasks = [bench.submit("echo", {"message": "x", "sleepSeconds": 0.2}) for _ in range(60)]
        states = {bench.finished(task_id, 40).state for task_id in tasks}
        runs = {bench.runs(task_id) for task_id in tasks}
        eventually(lambda: "task succeeded" in second.text(), 10, "the second takes tasks, too")
        answers = eventually(
            lambda: len(found := bench.celery.control.ping(timeout=2)) == 2 and found, 15, "both answer"
        )

        assert {tuple(answer) for answer in answers} == {(name,)}
        assert first.process.poll() is second.process.poll() is None
        assert "Connection to broker lost" not in first.text()
    assert states == {State.SUCCEEDED}
    assert runs == {1}
