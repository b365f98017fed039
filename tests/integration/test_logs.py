"""A worker's lines are JSON, all of them, and say which worker and which task."""

import json

from dispatch.records import State
from support.worker import bench, running_worker


def test_main_children_and_celery_write_the_same_lines(settings):
    with bench(settings) as made, running_worker(settings) as worker:
        task_id = made.submit("echo", {"message": "hi"})
        assert made.finished(task_id).state is State.SUCCEEDED
        bad = made.submit("echo", {"message": "hi", "nonsense": 1})
        assert made.finished(bad).state is State.DEAD_LETTERED
        lines = [json.loads(line) for line in worker.text().splitlines()]

    own = [line for line in lines if line.get("task_id") in {task_id, bad}]
    assert {line["service"] for line in lines} == {"worker"}
    assert len({line["worker"] for line in lines}) == 1
    assert {"celery.worker.strategy", "dispatch.task"} <= {line["logger"] for line in own}
    assert len({line["process"] for line in own}) >= 2
    (failed,) = [line for line in own if line["event"] == "attempt failed"]
    assert (failed["type"], failed["attempt"], failed["request_id"]) == ("echo", 1, "rq-test")
    assert failed["trace_id"] == made.store.get(bad).trace_id
