"""A gateway with lanes: the flood of one is refused, at the gateway's limit and at the broker's, and no other lane is."""

import pytest

import topology
from dispatch.broker import provision
from dispatch.gateway.admission.depth import DepthReader
from dispatch.protocol.lanes import parse_lanes
from support.gateway_fakes import problem
from support.gateway_live import gateway
from support.waiting import eventually

BULK = "robot.task.q.bulk"

BODIES = {
    "bulk": {"type": "echo", "payload": {"message": "hi"}},
    "default": {"type": "robot.clean", "payload": {"robot": "R-1", "areas": ["hall"]}},
}


@pytest.fixture
def laned(settings):
    chosen = settings.model_copy(update={"lanes": parse_lanes("bulk=echo"), "queue_depth_limit": 4})
    provision.apply(topology.broker_map(chosen), chosen)
    return chosen


def work_queues(client):
    return {one["name"]: one for one in client.get("/v1/queues").json["items"] if one["role"] == "work"}


def test_a_flood_of_one_lane_is_refused_and_the_other_lane_is_open(laned):
    with gateway(laned) as client:

        def send(lane):
            return client.post("/v1/tasks", json=BODIES[lane])

        first = send("bulk")
        refused = eventually(lambda: (answer := send("bulk")).status_code == 429 and answer, 30, "the lane is full")
        others = [send("default") for _ in range(3)]
        queues = eventually(
            lambda: (found := work_queues(client))[BULK]["guard"]["refusing"] and found, 30, "it has read the depth"
        )
        refused = [refused, send("bulk")]
        paused = client.put("/v1/pauses/lane:bulk", json={"reason": "a flood"})
        no_lane = client.put("/v1/pauses/lane:gone", json={"reason": "a flood"})
        client.delete("/v1/pauses/lane:bulk")

    for answer in refused:
        problem(answer, 429, "queue-depth-exceeded")
    assert [answer.status_code for answer in others] == [202] * 3
    assert (first.json["queue"], others[0].json["queue"]) == ("robot.task.q.bulk", "robot.task.q")
    assert {name: (one["lane"], one["guard"]["refusing"]) for name, one in queues.items()} == {
        "robot.task.q": ("default", False), "robot.task.q.bulk": ("bulk", True)
    }  # fmt: skip
    assert [one["drift"] for one in queues.values()] == [[], []]
    assert paused.status_code == 200
    problem(no_lane, 422, "validation-error")


def test_the_brokers_own_limit_of_a_lane_refuses_no_other(laned, monkeypatch):
    monkeypatch.setattr(DepthReader, "start", lambda _: None)  # the guards never learn the depths
    with gateway(laned, ready=False) as client:
        answers = [client.post("/v1/tasks", json=BODIES["bulk"]) for _ in range(20)]
        other = client.post("/v1/tasks", json=BODIES["default"])

    problem(answers[-1], 429, "queue-depth-exceeded")
    assert other.status_code == 202
