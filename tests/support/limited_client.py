"""Tasks of the types in `support.limited`, and a check of what their runs have noted."""

import collections
import json
import time

from dispatch.protocol import names
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.record import State
from support.waiting import eventually

#: The app of a worker with these types.
APP = "support.limited"

#: Those that make a concurrency key.
_KEYED = ("limited.one", "limited.two", "limited.both")


def send(bench, task_type, log, *, key="r", **payload):
    """Accept a task as a gateway that knows the type does; its id."""
    body = json.dumps(
        [
            [{"path": str(log), "robot": key, **payload}],
            {},
            {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
        ]
    )
    task_id = new_task_id()
    headers = {
        "id": task_id, "task": task_type, "lang": "py", "root_id": task_id, "x-principal": "local", "x-request-id": "rq-test",
        "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-accepted-at": int(time.time() * 1_000), "retries": 0,
        **({"x-concurrency-key": key} if task_type in _KEYED else {}),
    }  # fmt: skip
    message = Message(body.encode(), headers, correlation_id=task_id, routing_key=names.routing_key(task_type))
    bench.publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)
    return task_id


def all_succeed(bench, ids, timeout=90):
    """The records of tasks, once all of them have succeeded."""

    def left():
        return [each for each in bench.store.get_many(ids) if each is None or each.state is not State.SUCCEEDED]

    eventually(lambda: not left(), timeout, lambda: f"{len(left())} are left, e.g. {left()[:2]}")
    return bench.store.get_many(ids)


def order(log):
    """The task ids in the order in which their first runs began."""
    return list(dict.fromkeys(task_id for _, what, task_id in _notes(log) if what == "begin"))


def most_at_once(log):
    """How many tasks ran at once at most; a run that was cut off lasts until its task's next one."""
    running, most = set(), 0
    for _, what, task_id in _notes(log):
        (running.add if what == "begin" else running.discard)(task_id)
        most = max(most, len(running))
    return most


def begins(log):
    """How often each task began."""
    return collections.Counter(task_id for _, what, task_id in _notes(log) if what == "begin")


def _notes(log):
    lines = log.read_text().splitlines() if log.exists() else ()  # no run has begun yet
    return sorted((int(at), what, task_id) for at, what, task_id in map(str.split, lines))
