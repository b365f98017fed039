"""A principal's share of requests: what its answers have. How it is counted: `integration/gateway/test_quota.py`."""

import pytest

from dispatch.gateway.admission.quota import Share
from dispatch.gateway.http.problems import Problem
from support.gateway_fakes import World, problem


@pytest.mark.parametrize(
    ("used", "left", "retry_after"),
    [(0.6, 99, 1), (30.0, 50, 1), (60.0, 0, 1), (60.5, 0, 2), (3.0, 95, 1)],
)
def test_what_is_left_of_a_share(used, left, retry_after):
    share = Share(100, 60.0, used, taken=True)

    assert (share.left, share.retry_after) == (left, retry_after)


def test_the_headers_are_the_drafts():
    assert Share(100, 60.0, 30.2, taken=True).headers() == {
        "RateLimit-Policy": '"principal";q=100;w=60',
        "RateLimit": '"principal";r=49;t=31',
    }


def test_each_answer_of_the_api_has_what_is_left_and_the_open_ones_count_nothing():
    asked = []
    client = World(spend=lambda principal: asked.append(principal) or {"RateLimit": '"principal";r=1;t=1'}).client()

    assert client.get("/v1/task-types").headers["RateLimit"] == '"principal";r=1;t=1'
    assert client.get("/v1/tasks/nonsense").headers["RateLimit"] == '"principal";r=1;t=1'
    assert "RateLimit" not in client.get("/livez").headers
    assert asked == ["local", "local"]


def test_a_share_that_is_used_up_is_a_problem():
    def spend(_):
        raise Problem("quota-exceeded", retry_after=3, headers={"RateLimit": '"principal";r=0;t=63'})

    world = World(spend=spend)
    answer = world.client().post("/v1/tasks", json={"type": "greet", "payload": {"message": "x"}})

    problem(answer, 429, "quota-exceeded")
    assert (answer.headers["Retry-After"], answer.headers["RateLimit"]) == ("3", '"principal";r=0;t=63')
    assert world.submitter.submitted == []
