"""A worker's lines are JSON, all of them, and name the worker and the task."""

import json
import re

from dispatch.protocol.record import State
from support.waiting import eventually
from support.worker import open_bench, running_worker


def test_main_children_and_celery_write_the_same_lines(settings):
    with open_bench(settings) as made, running_worker(settings, abrupt=True) as worker:
        task_id = made.submit("echo", {"message": "hi"})
        assert made.finished(task_id).state is State.SUCCEEDED
        bad = made.submit("echo", {"message": "hi", "nonsense": 1})
        assert made.finished(bad).state is State.DEAD_LETTERED
        lines = [json.loads(line) for line in worker.text().splitlines()]

    own = [line for line in lines if line.get("task_id") in {task_id, bad}]
    assert {line["service"] for line in lines} == {"worker"}
    assert len({line["worker"] for line in lines}) == 1
    assert {line["logger"] for line in own} == {"dispatch.task"}
    assert {line["process"] for line in own} == {worker.process.pid}
    (succeeded,) = [line for line in own if line["task_id"] == task_id]  # one line for a run that went well
    assert (succeeded["event"], succeeded["type"], succeeded["request_id"]) == ("task succeeded", "echo", "rq-test")
    assert succeeded["trace_id"] == made.store.get(task_id).trace_id
    (failed,) = [line for line in own if line["event"] == "attempt failed"]
    assert (failed["type"], failed["attempt"], failed["request_id"]) == ("echo", 1, "rq-test")
    assert (failed["error_type"], failed["decided"], failed["queue"]) == (
        "invalid-payload",
        "dead: permanent",
        "robot.task.dlq",
    )
    assert [line["event"] for line in own if line["task_id"] == bad] == ["attempt failed"]  # one line has it all
    assert failed["trace_id"] == made.store.get(bad).trace_id


def test_a_line_that_names_a_task_is_about_this_task_also_in_children_that_a_message_brought_forth(settings):
    with open_bench(settings) as made, running_worker(settings, "-l", "debug", abrupt=True) as worker:
        slow = [made.submit("echo", {"message": "x", "sleepSeconds": 1}) for _ in range(6)]
        failing = [made.submit("echo", {"message": "x", "failTimes": 1}) for _ in range(6)]
        ends = {made.finished(task_id, 40).state for task_id in (*slow, *failing)}
        # The last line of a task follows the end of its record.
        eventually(lambda: worker.text().count('"task succeeded"') >= 12, 10, "every line is there")
        lines = [json.loads(line) for line in worker.text().splitlines()]
        traces = {task_id: made.store.get(task_id).trace_id for task_id in (*slow, *failing)}
    named = [(found[1], line) for line in lines if (found := re.search(r"Task echo\[([^]]+)\]", line["event"]))]
    succeeded = [line for line in lines if line["event"] == "task succeeded"]
    handed_over = [line for line in lines if line["event"] == "attempt handed over"]

    assert ends == {State.SUCCEEDED}
    assert [line["task_id"] for _, line in named] == [task_id for task_id, _ in named]
    assert sorted(line["task_id"] for line in succeeded) == sorted((*slow, *failing))
    for line in (*succeeded, *(line for _, line in named)):
        assert (line["trace_id"], line["request_id"]) == (traces[line["task_id"]], "rq-test")
    assert sorted(line["task_id"] for line in handed_over) == sorted(failing)
    assert {(line["decided"], line["queue"], line["error_type"], line["process"]) for line in handed_over} == {
        ("retry 1m", "robot.retry.q.1m", "echo-failed", worker.process.pid)
    }
    raised = {line["process"] for line in lines if line["event"] == "handler raised"}
    assert {line["process"] for line in succeeded} == {worker.process.pid}
    assert raised
    assert worker.process.pid not in raised
