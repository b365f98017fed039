"""A task's hops as server-sent events."""

import dataclasses
import json
import threading

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.gateway.views import event_stream as streams
from dispatch.protocol.record import State
from support.cases import each
from support.gateway_fakes import FakeTasks, World, problem, record

STREAM = {"Accept": "text/event-stream"}


def hop(seq, kind):
    return {"seq": seq, "at": "2026-11-24T02:36:00.000Z", "kind": kind}


class Tasks(FakeTasks):
    """A task whose hops come one by one."""

    def __init__(self, held, *coming):
        super().__init__(held)
        self.happened = [hop(1, "accepted")]
        self.coming = list(coming)

    def hops(self, _task_id):
        return list(self.happened)

    def wait(self, task_id, revision, _seconds, _over):
        one = self.held[task_id]
        if not self.coming:
            raise StoreUnavailable
        kind = self.coming.pop(0)
        if kind is None:
            return one
        self.happened.append(hop(len(self.happened) + 1, kind))
        state = State.SUCCEEDED if kind == "succeeded" else one.state
        self.held[task_id] = dataclasses.replace(one, revision=revision + 1, state=state)
        return self.held[task_id]


def events(text):
    return [part.split("\n") for part in text.split("\n\n") if part.startswith("id: ")]


def test_hops_come_as_they_happen_and_the_stream_ends_with_the_task():
    one = record(state=State.QUEUED)
    answer = (
        World(tasks=Tasks(one, "published", None, "succeeded"))
        .client()
        .get(f"/v1/tasks/{one.task_id}/events", headers=STREAM)
    )

    assert answer.mimetype == "text/event-stream"
    assert answer.text.startswith("retry: 3000\n\n")
    assert [part[:2] for part in events(answer.text)] == [
        ["id: 1", "event: accepted"],
        ["id: 2", "event: published"],
        ["id: 3", "event: succeeded"],
    ]
    assert json.loads(events(answer.text)[2][2].removeprefix("data: ")) == hop(3, "succeeded")
    assert answer.text.count(": keep-alive\n\n") == 1


def test_a_stream_goes_on_after_the_last_event():
    one = record(state=State.QUEUED)
    client = World(tasks=Tasks(one, "published", "succeeded")).client()
    answer = client.get(f"/v1/tasks/{one.task_id}/events", headers={**STREAM, "Last-Event-ID": "2"})

    assert [part[0] for part in events(answer.text)] == ["id: 3"]


def test_a_client_that_has_seen_the_end_need_not_come_back():
    one = record(state=State.SUCCEEDED)
    client = World(tasks=Tasks(one)).client()
    path = f"/v1/tasks/{one.task_id}/events"

    assert client.get(path, headers={**STREAM, "Last-Event-ID": "1"}).status_code == 204
    assert len(events(client.get(path, headers=STREAM).text)) == 1


@each("given", [None, "", "x", "-1", "1.5", "²", "9" * 40])
def test_a_strange_last_event_id_is_none(given):
    assert streams.last_event(given) == 0


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/event-stream;q=0.5"])
def test_a_list_is_what_others_get(accept):
    one = record()
    headers = {"Accept": accept} if accept else {}
    answer = World(tasks=Tasks(one)).client().get(f"/v1/tasks/{one.task_id}/events", headers=headers)

    assert answer.get_json() == [hop(1, "accepted")]


def test_a_stream_without_redis_ends_so_that_the_client_comes_back():
    one = record(state=State.QUEUED)
    answer = World(tasks=Tasks(one)).client().get(f"/v1/tasks/{one.task_id}/events", headers=STREAM)

    assert len(events(answer.text)) == 1


def test_streams_are_few_and_leave_their_place():
    one = record(state=State.QUEUED)
    waiting, go = threading.Event(), threading.Event()

    class Slow(Tasks):
        def wait(self, task_id, revision, seconds, over):
            waiting.set()
            go.wait(5)
            return super().wait(task_id, revision, seconds, over)

    app = World(tasks=Slow(one, "succeeded", "x"), options={"http_waits": "1"}).app()
    path = f"/v1/tasks/{one.task_id}/events"
    first = threading.Thread(target=lambda: app.test_client().get(path, headers=STREAM, buffered=True))
    first.start()
    assert waiting.wait(5)
    full = app.test_client().get(path, headers=STREAM)
    go.set()
    first.join(5)

    assert problem(full, 503, "stream-capacity")
    assert full.headers["Retry-After"] == "5"
    assert app.test_client().get(path, headers=STREAM).status_code == 200


def test_a_head_request_keeps_no_place():
    one = record(state=State.QUEUED)
    client = World(tasks=Tasks(one, "succeeded"), options={"http_waits": "1"}).client()
    path = f"/v1/tasks/{one.task_id}/events"

    assert {client.head(path, headers=STREAM, buffered=True).status_code for _ in range(3)} == {200}


def test_the_contract_names_both_forms():
    operation = World().client().get("/openapi.json").get_json()["paths"]["/v1/tasks/{taskId}/events"]["get"]

    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "204" in operation["responses"]
    assert {"$ref": "#/components/parameters/Last-Event-ID"} in operation["parameters"]
