"""The simulator's callbacks, to a receiver on a real port."""

import threading

import flask
import httpx
import pytest

from examples.robot_simulator import callbacks
from examples.robot_simulator.app import create_app
from examples.robot_simulator.server import serving
from examples.robot_simulator.world import Config
from support.waiting import eventually


class Receiver:
    """Keeps what is POSTed to it; the first few responses can be errors."""

    def __init__(self):
        self.lock = threading.Lock()
        self.got, self.answers = [], []
        self.app = flask.Flask(__name__)
        self.app.add_url_rule("/done/<order>", view_func=self.receive, methods=["POST"])

    def receive(self, order):
        with self.lock:
            self.got.append((order, flask.request.get_json()))
            return "", self.answers.pop(0) if self.answers else 202

    def states(self, order):
        with self.lock:
            return [view["state"] for name, view in self.got if name == order]


@pytest.fixture
def receiver():
    receiver = Receiver()
    with serving(receiver.app) as url:
        receiver.url = url
        yield receiver


@pytest.fixture
def vendor(monkeypatch):
    monkeypatch.setattr(callbacks, "BACKOFF", 0.02)
    with serving(create_app(Config(work_seconds=0.2))) as url, httpx.Client(base_url=url) as http:
        form = {"grant_type": "client_credentials", "client_id": "demo", "client_secret": "demo"}
        http.headers["Authorization"] = f"Bearer {http.post('/oauth/token', data=form).json()['access_token']}"
        yield http


def order(vendor, url, key="k", robot="SN-1"):
    body = {"areas": ["a"], "callbackUrl": url}
    path = f"/openapi/v1/robots/{robot}/tasks/temp/withoutSite"
    answer = vendor.post(path, json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return answer.json()["name"]


def counts(vendor):
    return vendor.get("/control/counts").json()["callbacks"]


def test_the_end_is_posted_once_with_the_command(vendor, receiver):
    name = order(vendor, f"{receiver.url}/done/1")

    eventually(lambda: counts(vendor)["delivered"] == 1)
    [(_, view)] = receiver.got
    assert (view["name"], view["state"], view["percent"]) == (name, "SUCCEEDED", 100)
    assert counts(vendor) == {"pending": 0, "sending": 0, "delivered": 1, "failed": 0}


@pytest.mark.parametrize("outcome", ["FAILED", "ABORTED"])
def test_a_bad_end_is_posted_too(vendor, receiver, outcome):
    vendor.post("/control/jobs", json={"outcome": outcome})
    order(vendor, f"{receiver.url}/done/1")

    eventually(lambda: receiver.states("1") == [outcome])


def test_a_cancelled_command_is_posted_at_once(vendor, receiver):
    vendor.post("/control/jobs", json={"seconds": 3_600})
    name = order(vendor, f"{receiver.url}/done/1")
    vendor.post(f"/openapi/v1/{name}/cancel")

    eventually(lambda: receiver.states("1") == ["CANCELLED"])


def test_a_receiver_in_trouble_gets_it_again(vendor, receiver):
    receiver.answers = [503, 500]
    order(vendor, f"{receiver.url}/done/1")

    eventually(lambda: counts(vendor)["delivered"] == 1)
    assert receiver.states("1") == ["SUCCEEDED"] * 3


def test_a_receiver_that_never_accepts_is_given_up(vendor, receiver):
    receiver.answers = [500] * 100
    order(vendor, f"{receiver.url}/done/1")
    order(vendor, "http://127.0.0.1:1/", key="other")

    eventually(lambda: counts(vendor) == {"pending": 0, "sending": 0, "delivered": 0, "failed": 2})
    assert receiver.states("1") == ["SUCCEEDED"] * callbacks.TRIES


@pytest.mark.parametrize(
    ("kind", "seconds", "states"),
    [
        ("twice", 0.2, ["SUCCEEDED"] * 2),
        ("never", 0.2, []),
        ("early", 3, ["WAITING", "SUCCEEDED"]),  # a tenth of it WAITING, also on a busy machine
    ],
)
def test_callbacks_can_be_doubled_lost_and_early(vendor, receiver, kind, seconds, states):
    vendor.post("/control/jobs", json={"callback": kind, "seconds": seconds})
    order(vendor, f"{receiver.url}/done/1")
    order(vendor, f"{receiver.url}/done/2", key="later")

    eventually(lambda: receiver.states("2") == ["SUCCEEDED"])
    eventually(lambda: receiver.states("1") == states)


def test_a_repeated_order_may_name_another_receiver(vendor, receiver):
    first = order(vendor, f"{receiver.url}/done/old")

    assert order(vendor, f"{receiver.url}/done/new") == first
    eventually(lambda: receiver.states("new") == ["SUCCEEDED"])
    assert receiver.states("old") == []


def test_a_thousand_running_orders_take_a_handful_of_threads(vendor, receiver):
    vendor.post("/control/jobs", json={"seconds": 3_600, "times": None})
    for number in range(1_000):
        order(vendor, f"{receiver.url}/done/{number}", key=str(number), robot=f"SN-{number}")

    assert vendor.get("/control/counts").json()["active"] == 1_000
    assert counts(vendor)["pending"] == 1_000
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("callback")]) <= 5
