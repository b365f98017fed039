"""The robot simulator's world and its faults, on a clock of our own."""

import pytest
from flask.testing import FlaskClient

from examples.robot_simulator import world as simulated
from examples.robot_simulator.app import create_app
from examples.robot_simulator.faults import FAULTS, Fault, FaultJob, FaultQueue, by_serial
from examples.robot_simulator.world import Config, OrderKeyReused, RobotBusy, World
from support.cases import each

ORDERS = "/openapi/v1/robots/{}/tasks/temp/withoutSite"


class Clock:
    def __init__(self):
        self.now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def world(clock):
    return World(Config(work_seconds=10, token_seconds=60), clock)


@pytest.fixture
def client() -> FlaskClient:
    return create_app(Config(work_seconds=1_000)).test_client()


@pytest.fixture
def bearer(client):
    form = {"grant_type": "client_credentials", "client_id": "demo", "client_secret": "demo"}
    return {"Authorization": f"Bearer {client.post('/oauth/token', data=form).json['access_token']}"}


def test_a_command_waits_runs_and_succeeds(world, clock):
    command = world.order("SN-1", ("a", "b"), "k", None)
    seen = []

    for seconds in (0, 0.9, 1, 5.5, 9.9, 10, 1_000):
        clock.now = 1_000 + seconds
        view = world.view(command)
        seen.append((view["state"], view["percent"]))

    assert seen == [
        ("WAITING", 0), ("WAITING", 0), ("RUNNING", 0), ("RUNNING", 50), ("RUNNING", 98), ("SUCCEEDED", 100), ("SUCCEEDED", 100),
    ]  # fmt: skip


@pytest.mark.parametrize("outcome", ["FAILED", "ABORTED"])
def test_a_job_can_end_badly_on_the_way(world, clock, outcome):
    world.jobs.add(FaultJob(outcome=outcome, at_percent=50))
    command = world.order("SN-1", ("a",), "k", None)

    clock.now += 5
    assert world.view(command)["state"] == "RUNNING"
    clock.now += 100
    assert (world.view(command)["state"], world.view(command)["percent"]) == (outcome, 50)


def test_a_job_that_fails_at_once_fails_only_when_it_starts(world, clock):
    world.jobs.add(FaultJob(outcome="FAILED", at_percent=0))
    command = world.order("SN-1", ("a",), "k", None)

    assert world.view(command)["state"] == "WAITING"
    clock.now += 1
    assert world.view(command)["state"] == "FAILED"


def test_the_same_key_finds_the_same_command(world, clock):
    first = world.order("SN-1", ("a",), "k", None)
    clock.now += 100

    assert world.order("SN-1", ("a",), "k", None).id == first.id
    assert world.order("SN-1", ("a",), "other", None).id != first.id
    assert world.order("SN-1", ("a",), "", None).id != world.order("SN-1", ("a",), "", None).id


def test_the_same_key_with_another_order_is_refused(world):
    world.order("SN-1", ("a",), "k", "content")

    with pytest.raises(OrderKeyReused):
        world.order("SN-2", ("a",), "k", "content")


@pytest.mark.parametrize("outcome", ["FAILED", "ABORTED"])
def test_a_command_that_ended_badly_releases_its_key(world, clock, outcome):
    world.jobs.add(FaultJob(outcome=outcome))
    first = world.order("SN-1", ("a",), "k", None)
    clock.now += 100

    assert world.order("SN-1", ("a",), "k", None).id != first.id


def test_a_cancelled_command_stays_where_it_was(world, clock):
    command = world.order("SN-1", ("a",), "k", None)
    clock.now += 5.5
    world.cancel("SN-1", command.id)
    clock.now += 100

    view = world.view(world.command("SN-1", command.id))
    assert (view["state"], view["percent"]) == ("CANCELLED", 50)


def test_cancelling_a_finished_command_changes_nothing(world, clock):
    command = world.order("SN-1", ("a",), "k", None)
    clock.now += 10

    assert world.view(world.cancel("SN-1", command.id))["state"] == "SUCCEEDED"


def test_a_robot_at_work_has_an_estimate_of_the_seconds_left(world, clock):
    command = world.order("SN-1", ("a",), "k", None)
    seen = []

    for seconds in (0, 0.04, 9.95, 10):
        clock.now = 1_000 + seconds
        seen.append(world.view(command).get("remainingSeconds"))

    assert seen == [10, 10, 0.1, None]


def test_an_estimate_can_be_wrong(world, clock):
    world.jobs.add(FaultJob(estimate_seconds=3_600))
    command = world.order("SN-1", ("a",), "k", None)

    clock.now += 9
    assert world.view(command)["remainingSeconds"] == 3_600


def test_a_vendor_may_have_no_estimates(clock):
    world = World(Config(estimates=False), clock)

    assert "remainingSeconds" not in world.view(world.order("SN-1", ("a",), "k", None))


@each(
    ("outcome", "at_percent", "ends"),
    [("SUCCEEDED", 50, 1_010), ("FAILED", 50, 1_005.5), ("ABORTED", 0, 1_001), ("FAILED", 99, 1_009.91)],
)
def test_when_a_command_ends_is_known_from_the_start(outcome, at_percent, ends):
    world = World(Config(work_seconds=10), Clock())
    world.jobs.add(FaultJob(outcome=outcome, at_percent=at_percent))
    command = world.order("SN-1", ("a",), "k", None)

    assert command.ends == pytest.approx(ends)
    assert command.progress(ends - 0.1)[0] in simulated.ACTIVE
    assert command.progress(ends + 0.001)[0] == outcome


def test_a_robot_takes_orders_one_at_a_time_where_the_vendor_wants_it(clock):
    world = World(Config(work_seconds=10, one_at_a_time=True), clock)
    first = world.order("SN-1", ("a",), "k", None)
    clock.now += 2.5

    with pytest.raises(RobotBusy) as caught:
        world.order("SN-1", ("a",), "other", None)
    assert caught.value.seconds == 7.5
    assert world.order("SN-1", ("a",), "k", None).id == first.id
    assert world.order("SN-2", ("a",), "third", None).robot == "SN-2"
    assert world.counts().get("other") is None
    clock.now += 7.5
    assert world.order("SN-1", ("a",), "other", None).robot == "SN-1"


def test_a_cancelled_robot_is_free(clock):
    world = World(Config(work_seconds=10, one_at_a_time=True), clock)
    world.cancel("SN-1", world.order("SN-1", ("a",), "k", None).id)

    assert world.order("SN-1", ("a",), "other", None).robot == "SN-1"


def test_a_command_belongs_to_its_robot(world):
    command = world.order("SN-1", ("a",), "k", None)

    assert world.command("SN-2", command.id) is None


def test_a_robot_shows_battery_and_work(world, clock):
    world.order("SN-1", ("a", "b"), "k", None)
    clock.now += 5.5

    status = world.status("SN-1")
    assert (status["state"], status["batteryPercent"], status["command"]["message"]) == ("CLEANING", 80, "area 2 of 2")


def test_tokens_expire_and_can_be_revoked(world, clock):
    token = world.new_token()
    assert world.is_token(token)
    clock.now += 60
    assert not world.is_token(token)

    token = world.new_token()
    world.revoke_tokens()
    assert not world.is_token(token)


def test_memory_is_bounded_and_the_oldest_goes_first(world, monkeypatch):
    monkeypatch.setattr(simulated, "MAX_ENTRIES", 3)
    commands = [world.order("SN-1", ("a",), f"k{n}", None) for n in range(5)]

    assert [world.command("SN-1", command.id) is not None for command in commands] == [False, False, True, True, True]
    assert list(world.counts()) == ["k2", "k3", "k4"]


def test_faults_are_used_up_in_order_and_can_begin_late():
    queue = FaultQueue()
    queue.add(Fault(match="orders", status=503, times=2, after=1))
    queue.add(Fault(match="token", status=401, times=None))

    def take(endpoint):
        taken = queue.take(lambda fault: fault.match == endpoint)
        return taken and taken.status

    assert [take("orders") for _ in range(4)] == [None, 503, 503, None]
    assert [take("token") for _ in range(3)] == [401] * 3
    assert [fault.match for fault in queue.pending()] == ["token"]


@each(
    ("robot", "nth", "status"),
    [
        ("SN-FLAKY-2", 1, 500),
        ("SN-FLAKY-2", 2, 500),
        ("SN-FLAKY-2", 3, None),
        ("SN-BROKEN", 10_000, 500),
        ("SN-BUSY", 1, 429),
        ("SN-DOWN-1", 1, 503),
        ("SN-REFUSE", 1, 422),
        ("SN-1", 1, None),
        ("SN-FLAKY-", 1, None),
        ("SN-NOTHING-2", 1, None),
    ],
)
def test_a_serial_number_can_ask_for_trouble(robot, nth, status):
    fault = by_serial(FAULTS, robot, nth)

    assert (fault.status if fault else None) == status


def test_the_api_requires_a_token(client):
    assert client.get("/openapi/v1/robots").status_code == 401
    assert client.get("/openapi/v1/robots", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.post("/oauth/token", data={"grant_type": "client_credentials", "client_id": "x"}).status_code == 401
    assert client.post("/oauth/token", data={}).status_code == 400
    assert client.get("/healthz").status_code == 200


def test_paths_and_methods_that_do_not_exist_are_answered_in_json(client):
    assert client.get("/nowhere").json["error"]["code"] == "NOT_FOUND"
    assert client.put("/control/faults").json["error"]["code"] == "METHOD_NOT_ALLOWED"


def test_an_order_is_answered_with_its_command(client, bearer):
    answer = client.post(ORDERS.format("SN-1"), json={"areas": ["a"]}, headers={**bearer, "Idempotency-Key": "k"})

    assert answer.json["name"].startswith("robots/SN-1/commands/")
    assert answer.json["state"] == "WAITING"
    seen = client.get(f"/openapi/v1/{answer.json['name']}", headers=bearer).json
    assert 990 <= seen["remainingSeconds"] <= answer.json["remainingSeconds"] <= 1_000
    assert seen == {**answer.json, "remainingSeconds": seen["remainingSeconds"]}
    assert client.get("/control/orders").json == {"k": {"received": 1, "created": 1}}
    robots = client.get("/openapi/v1/robots", headers=bearer).json["robots"]
    assert [robot["state"] for robot in robots] == ["CLEANING", "IDLE", "IDLE", "IDLE", "IDLE"]


def test_a_busy_robot_is_answered_with_the_seconds_to_wait():
    client = create_app(Config(work_seconds=1_000, one_at_a_time=True)).test_client()
    form = {"grant_type": "client_credentials", "client_id": "demo", "client_secret": "demo"}
    bearer = {"Authorization": f"Bearer {client.post('/oauth/token', data=form).json['access_token']}"}
    client.post(ORDERS.format("SN-1"), json={"areas": ["a"]}, headers={**bearer, "Idempotency-Key": "k"})

    answer = client.post(ORDERS.format("SN-1"), json={"areas": ["a"]}, headers={**bearer, "Idempotency-Key": "other"})
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "ROBOT_BUSY")
    assert 990 <= int(answer.headers["Retry-After"]) <= 1_000
    assert client.get("/control/orders").json["other"] == {"received": 1, "created": 0}


def test_what_was_asked_for_is_counted(client, bearer):
    name = client.post(ORDERS.format("SN-1"), json={"areas": ["a"]}, headers=bearer).json["name"]
    client.get(f"/openapi/v1/{name}", headers=bearer)
    client.get(f"/openapi/v1/{name}", headers=bearer)
    assert client.get("/control/counts").json["active"] == 1
    client.post(f"/openapi/v1/{name}/cancel", headers=bearer)

    assert client.get("/control/counts").json == {
        "requests": {"token": 1, "order": 1, "command": 2, "cancel": 1},
        "active": 0,
        "callbacks": {"pending": 0, "sending": 0, "delivered": 0, "failed": 0},
    }


def test_a_flaky_robot_fails_twice_for_each_key_and_makes_one_order(client, bearer):
    def order(key):
        headers = {**bearer, "Idempotency-Key": key}
        return client.post(ORDERS.format("SN-FLAKY-2"), json={"areas": ["a"]}, headers=headers).status_code

    assert [order("k") for _ in range(4)] == [500, 500, 200, 200]
    assert order("other") == 500
    assert client.get("/control/orders").json["k"] == {"received": 4, "created": 1}


@each(
    ("robot", "body", "status"),
    [
        ("SN-1", {}, 400),
        ("SN-1", {"areas": []}, 400),
        ("SN-1", {"areas": ["a"], "speed": 1}, 400),
        ("SN-1", {"areas": ["a"], "callbackUrl": "ftp://x/"}, 400),
        ("XY-1", {"areas": ["a"]}, 404),
    ],
)
def test_orders_that_make_no_sense_are_refused(client, bearer, robot, body, status):
    answer = client.post(ORDERS.format(robot), json=body, headers=bearer)

    assert answer.status_code == status
    assert answer.json["error"]["code"]


def test_control_injects_faults_and_clears_them(client, bearer):
    fault = {"match": "orders", "status": 503, "retryAfter": 2, "times": 2}
    assert client.post("/control/faults", json=fault).json[0]["times"] == 2

    answer = client.post(ORDERS.format("SN-1"), json={"areas": ["a"]}, headers=bearer)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert client.get("/control/faults").json[0]["times"] == 1
    assert client.delete("/control/faults").json == []
    assert client.post("/control/faults", json={"status": "503"}).status_code == 400


def test_reset_clears_everything(client, bearer):
    client.post("/control/faults", json={"status": 503})
    client.post("/control/jobs", json={"seconds": 1})
    client.post("/control/reset")

    assert client.get("/control/faults").json == client.get("/control/jobs").json == []
    assert client.get("/openapi/v1/robots", headers=bearer).status_code == 401
