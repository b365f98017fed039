"""robot.clean against a robot vendor's API on a real port, well and in trouble."""

import dataclasses
import datetime as dt
import email.utils
import socket
import threading
import time

import flask
import httpx
import pytest

from dispatch.config.settings import Settings, load
from dispatch.errors import PermanentError, RetryableError, Throttled
from dispatch.tasktypes import Wait
from examples.robot_simulator.app import create_app
from examples.robot_simulator.server import serving
from examples.robot_simulator.world import Config
from support.context import FakeContext
from support.waiting import eventually
from tasks import robots, vendor
from tasks.robots import CleaningState, CleanOrder, clean

POLL = 0.02


@dataclasses.dataclass
class Simulator:
    url: str
    settings: Settings
    http: httpx.Client

    def control(self, method, path, **body):
        answer = self.http.request(method, f"/control/{path}", json=body or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def fault(self, **fault):
        self.control("POST", "faults", **fault)

    def job(self, **job):
        self.control("POST", "jobs", **job)

    @property
    def orders(self):
        return self.control("GET", "orders")


@pytest.fixture
def simulator():
    app = create_app(Config(work_seconds=0.05, estimates=False))
    with serving(app) as url, httpx.Client(base_url=url, transport=httpx.HTTPTransport(verify=False)) as http:
        yield Simulator(url, load({}, robot_api_url=url, robot_poll=POLL), http)


@pytest.fixture
def context(simulator):
    return FakeContext(settings=simulator.settings)


def order(robot="SN-1", **fields):
    return CleanOrder.model_validate({"robot": robot, "areas": ["kitchen", "hall"], **fields})


def follow(order, context):
    """The steps of an attempt, as workers run them: a fresh context each, its state through JSON. The waits are real."""
    while isinstance(outcome := clean(order, context), Wait):
        # A wait that began a new ladder would have a robot that always fails clean for ever.
        assert (outcome.until, outcome.same_attempt) == (("finished",), True)
        context.state = CleaningState.model_validate_json(outcome.state.model_dump_json())
        context.step += 1
        time.sleep(outcome.seconds)
    return outcome


def retried(context):
    """The same task's next attempt, from its last checkpoint."""
    return dataclasses.replace(context, attempt=context.attempt + 1)


def redriven(context):
    """The same task's next cycle, from its last checkpoint."""
    return dataclasses.replace(context, cycle=context.cycle + 1, attempt=1, step=0)


# --- well ----------------------------------------------------------------------------------------
def test_it_succeeds_when_the_robot_has_finished_and_reports_progress_until_then(simulator, context):
    simulator.job(seconds=0.3)
    began = time.monotonic()
    result = follow(order(), context)

    assert time.monotonic() - began >= 0.3
    assert result["state"] == "SUCCEEDED"
    assert result["command"].startswith("robots/SN-1/commands/")
    percents = [percent for percent, _ in context.reports]
    assert percents == sorted(percents)
    assert len(set(percents)) >= 3
    assert context.reports[-1] == (100, "finished")
    assert "area 2 of 2" in [message for _, message in context.reports]


def test_an_estimate_saves_polls(context):
    app = create_app(Config(work_seconds=2))
    with serving(app) as url:
        follow(order(), dataclasses.replace(context, settings=load({}, robot_api_url=url, robot_poll=POLL)))
        requests = app.extensions["world"].totals()["requests"]

    # 2 s at 0.02 s, rising, would be 9.
    assert requests["command"] <= 4


def test_the_same_key_again_finds_the_finished_order(simulator, context):
    first = follow(order(), context)
    second = follow(order(), redriven(context))

    assert second == first
    assert simulator.orders == {"key-1": {"received": 2, "created": 1}}


def test_an_attempt_that_died_while_the_robot_worked_is_taken_up_again(simulator, context):
    with vendor.Vendor(simulator.settings, context.traceparent) as api:
        before = api.order("SN-1", {"areas": ["kitchen", "hall"], "mode": "vacuum", "passes": 1}, "key-1")

    assert follow(order(), context)["command"] == before.name
    assert simulator.orders["key-1"]["created"] == 1


def test_a_process_asks_for_one_token_and_uses_it_again(simulator, context):
    simulator.fault(match="token", status=503, after=1, times=None)

    follow(order(), context)
    follow(order(), dataclasses.replace(context, idempotency_key="key-2"))


def test_the_trace_goes_along(context):
    seen = []
    app = create_app(Config(work_seconds=0.01))
    app.before_request(lambda: seen.append(_header("traceparent")))
    with serving(app) as url:
        follow(order(), FakeContext(settings=load({}, robot_api_url=url, robot_poll=POLL)))

    assert set(seen) == {context.traceparent}


def _header(name):
    from flask import request  # noqa: PLC0415 - bound in the server's thread

    return request.headers.get(name)


# --- tokens --------------------------------------------------------------------------------------
def test_a_token_revoked_on_the_way_is_fetched_again(simulator, context):
    simulator.job(seconds=0.5)
    context.cancel = _act(lambda: simulator.control("DELETE", "tokens"))

    assert follow(order(), context)["state"] == "SUCCEEDED"


def test_tokens_that_expire_in_the_middle_are_renewed():
    with serving(create_app(Config(work_seconds=1.2, token_seconds=0.5))) as url:
        context = FakeContext(settings=load({}, robot_api_url=url, robot_poll=POLL))

        assert follow(order(), context)["state"] == "SUCCEEDED"


def test_a_wrong_secret_fails_for_good_and_is_not_shown(simulator, context):
    context.settings = load({}, robot_api_url=simulator.url, robot_client_secret="wr0ng-s3cret")

    with pytest.raises(PermanentError) as caught:
        follow(order(), context)

    assert caught.value.type == "upstream-unauthorized"
    assert "wr0ng" not in str(caught.value)


def test_a_fresh_token_that_is_refused_too_fails_for_good(simulator, context):
    simulator.fault(match="orders", status=401, times=None)

    with pytest.raises(PermanentError) as caught:
        follow(order(), context)

    assert caught.value.type == "upstream-unauthorized"
    assert simulator.orders["key-1"]["received"] == 2


# --- the API in trouble --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "kind", "type", "wait"),
    [
        ({"status": 429, "retryAfter": 7}, Throttled, "upstream-throttled", 7.0),
        ({"status": 429}, Throttled, "upstream-throttled", None),
        ({"status": 503, "retryAfter": 90}, RetryableError, "upstream-unavailable", 90.0),
        ({"status": 503, "retryAfter": "soon"}, RetryableError, "upstream-unavailable", None),
        ({"status": 500}, RetryableError, "upstream-error", None),
        ({"status": 504}, RetryableError, "upstream-timeout", None),
        ({"garbled": True}, RetryableError, "upstream-garbled", None),
        ({"drop": "before"}, RetryableError, "upstream-unavailable", None),
        ({"drop": "after"}, RetryableError, "upstream-unavailable", None),
        ({"status": 302}, PermanentError, "upstream-redirect", None),
        ({"status": 403}, PermanentError, "upstream-rejected", None),
        ({"status": 422}, PermanentError, "upstream-rejected", None),
    ],
)
@pytest.mark.parametrize("endpoint", ["token", "orders"])
def test_trouble_decides_what_follows_and_the_next_attempt_makes_one_order(
    simulator, context, endpoint, fault, kind, type, wait
):
    simulator.fault(match=endpoint, **fault)

    with pytest.raises(kind) as caught:
        follow(order(), context)

    assert (caught.value.__class__, caught.value.type) == (kind, type)
    assert getattr(caught.value, "retry_after", None) == wait
    assert follow(order(), context)["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"]["created"] == 1


def test_a_date_to_retry_after_becomes_seconds(simulator, context):
    date = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=120), usegmt=True)
    simulator.fault(match="orders", status=503, retryAfter=date)

    with pytest.raises(RetryableError) as caught:
        follow(order(), context)

    assert 100 < caught.value.retry_after <= 120


def test_an_order_that_was_taken_but_not_answered_is_not_given_twice(simulator, context):
    robot = "SN-LOST-1"
    with pytest.raises(RetryableError):
        follow(order(robot), context)
    assert simulator.orders["key-1"] == {"received": 1, "created": 1}

    assert follow(order(robot), context)["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 1}


def test_an_order_that_never_arrived_is_given_again(simulator, context):
    with pytest.raises(RetryableError):
        follow(order("SN-DROP-1"), context)
    assert simulator.orders["key-1"] == {"received": 1, "created": 0}

    assert follow(order("SN-DROP-1"), context)["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 1}


def test_an_api_that_does_not_listen_is_unavailable(context):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        context.settings = load({}, robot_api_url=f"http://127.0.0.1:{bound.getsockname()[1]}")

        with pytest.raises(RetryableError) as caught:
            follow(order(), context)

    assert caught.value.type == "upstream-unavailable"


def test_an_api_that_does_not_answer_times_out(simulator, context, monkeypatch):
    monkeypatch.setattr(vendor, "READ_TIMEOUT", 0.2)
    simulator.fault(match="orders", latencySeconds=1)

    with pytest.raises(RetryableError) as caught:
        follow(order(), context)

    assert caught.value.type == "upstream-timeout"


def test_something_that_is_not_http_is_unavailable(context):
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_mumble, args=(server,))
        thread.start()
        context.settings = load({}, robot_api_url=f"http://127.0.0.1:{server.getsockname()[1]}")

        with pytest.raises(RetryableError) as caught:
            follow(order(), context)
        thread.join()

    assert caught.value.type == "upstream-unavailable"


def _mumble(server):
    connection, _ = server.accept()
    with connection:
        connection.recv(4_096)
        connection.sendall(b"220 mail.example ESMTP\r\n")


def test_an_unknown_robot_fails_for_good_with_the_vendors_words(context):
    with pytest.raises(PermanentError) as caught:
        follow(order("XY-1"), context)

    assert caught.value.type == "upstream-rejected"
    assert str(caught.value) == "the robot API responded 404: ROBOT_NOT_FOUND no robot XY-1"


# --- trouble while the robot works ---------------------------------------------------------------
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "retryAfter": 0},
        {"status": 429, "retryAfter": 0},
        {"status": 404},
        {"garbled": True},
        {"drop": "before"},
    ],
)
def test_a_few_failed_looks_are_put_up_with(simulator, context, fault):
    simulator.job(seconds=0.3)
    simulator.fault(match="commands", times=robots.MAX_FAILED_POLLS - 1, **fault)

    assert follow(order(), context)["state"] == "SUCCEEDED"
    assert context.log.events.count("robot poll failed") == robots.MAX_FAILED_POLLS - 1
    assert simulator.orders["key-1"] == {"received": 1, "created": 1}


@pytest.mark.parametrize(("fault", "type"), [({"status": 500}, "upstream-error"), ({"status": 404}, "order-lost")])
def test_an_api_that_stays_away_ends_the_attempt_but_not_the_order(simulator, context, fault, type):
    simulator.job(seconds=0.3)
    simulator.fault(match="commands", times=robots.MAX_FAILED_POLLS, **fault)

    with pytest.raises(RetryableError) as caught:
        follow(order(), context)

    assert caught.value.type == type
    assert follow(order(), retried(context))["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 1}


@pytest.mark.parametrize(("asked", "seconds"), [(600, 600), (10**9, robots.MAX_POLL_DELAY)])
def test_being_asked_to_wait_long_between_looks_is_a_wait(simulator, context, asked, seconds):
    simulator.job(seconds=10)
    simulator.fault(match="commands", status=429, retryAfter=asked)
    context.state = clean(order(), context).state

    waiting = clean(order(), context)

    assert (waiting.seconds, waiting.state.failed_polls) == (seconds, 1)


def test_a_look_that_succeeds_forgives_the_failed_ones(simulator, context):
    simulator.job(seconds=10)
    context.state = clean(order(), context).state
    simulator.fault(match="commands", status=500, times=2)

    seen = []
    for _ in range(3):
        context.state = clean(order(), context).state
        seen.append(context.state.failed_polls)

    assert seen == [1, 2, 0]


def test_no_step_lasts_as_long_as_the_robot(simulator, context):
    simulator.job(seconds=3_600)
    began = time.monotonic()

    for _ in range(3):
        waiting = clean(order(), context)
        assert isinstance(waiting, Wait)
        context.state = waiting.state

    assert time.monotonic() - began < 20
    assert simulator.orders["key-1"] == {"received": 1, "created": 1}


def test_a_step_killed_before_its_wait_was_recorded_gives_no_second_order(simulator, context):
    simulator.job(seconds=0.3)
    clean(order(), context)  # its wait is lost

    assert follow(order(), context)["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 1}


# --- the vendor's callback -----------------------------------------------------------------------
def test_the_vendor_is_given_the_callback_url(context):
    app = create_app(Config(work_seconds=60))
    with serving(app) as url:
        clean(
            order(),
            dataclasses.replace(context, settings=load({}, robot_api_url=url), callback="http://127.0.0.1:1/cb"),
        )
        pending = list(app.extensions["callbacks"]._pending.values())

    assert [each.url for each in pending] == ["http://127.0.0.1:1/cb/finished/5.184e+06"]


def test_an_order_that_is_repeated_has_the_callback_url_of_the_first(context):
    context.callback = "http://127.0.0.1:1/first"
    with pytest.raises(RetryableError):
        follow(order("SN-STUCK-1"), context)
    again = dataclasses.replace(retried(context), callback="http://127.0.0.1:1/second")

    assert clean(order("SN-STUCK-1"), again).state.callback_url == "http://127.0.0.1:1/first/finished/5.184e+06"


def test_a_step_before_the_end_waits_again(simulator, context):
    simulator.job(seconds=3_600)
    context.state = clean(order(), context).state

    assert isinstance(clean(order(), context), Wait)  # woken by a signal


# --- the robot in trouble ------------------------------------------------------------------------
def test_a_robot_that_fails_is_retried_with_a_fresh_order(simulator, context):
    with pytest.raises(RetryableError) as caught:
        follow(order("SN-STUCK-1"), context)

    assert caught.value.type == "robot-failed"
    assert "STUCK" in str(caught.value)
    assert follow(order("SN-STUCK-1"), retried(context))["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 2}


def test_a_robot_that_another_command_stopped_is_left_alone(context):
    with pytest.raises(PermanentError) as caught:
        follow(order("SN-ABORT"), context)

    assert caught.value.type == "robot-stopped"


def test_a_stopped_robot_starts_again_only_by_a_redrive(simulator, context):
    simulator.job(outcome="ABORTED")
    with pytest.raises(PermanentError):
        follow(order(), context)
    with pytest.raises(PermanentError):
        follow(order(), context)
    assert simulator.orders["key-1"] == {"received": 1, "created": 1}

    assert follow(order(), redriven(context))["state"] == "SUCCEEDED"
    assert simulator.orders["key-1"] == {"received": 2, "created": 2}


def test_a_robot_that_always_fails_reaches_the_end_of_the_ladder(simulator, context):
    for attempt in (1, 2, 3):
        context.attempt = attempt
        with pytest.raises(RetryableError):
            follow(order("SN-STUCK"), context)

    assert simulator.orders["key-1"]["created"] == 3


@pytest.fixture
def one_at_a_time():
    app = create_app(Config(work_seconds=60, one_at_a_time=True))
    with serving(app) as url:
        yield load({}, robot_api_url=url, robot_poll=POLL)


def test_a_robot_that_is_busy_with_another_order_uses_up_no_attempt(one_at_a_time, context):
    with vendor.Vendor(one_at_a_time, context.traceparent) as api:
        api.order("SN-1", {"areas": ["kitchen"]}, "another")
        with pytest.raises(Throttled) as caught:
            api.order("SN-1", {"areas": ["kitchen"]}, "key-1")

    assert caught.value.type == "robot-busy"
    assert 50 <= caught.value.retry_after <= 60


def test_another_conflict_is_final(simulator, context):
    with vendor.Vendor(simulator.settings, context.traceparent) as api:
        api.order("SN-1", {"areas": ["kitchen"]}, "key-1")
        with pytest.raises(PermanentError) as caught:
            api.order("SN-1", {"areas": ["hall"]}, "key-1")

    assert caught.value.type == "upstream-rejected"
    assert "KEY_REUSED" in str(caught.value)


def test_an_active_command_has_an_estimate(one_at_a_time, context):
    with vendor.Vendor(one_at_a_time, context.traceparent) as api:
        command = api.order("SN-1", {"areas": ["kitchen"]}, "key-1")

        assert 50 <= api.command(command.name).remaining_seconds <= 60
        assert api.stop(command.name).remaining_seconds is None


def test_the_end_is_posted_to_the_callback_url(simulator, context):
    got = []
    receiver = flask.Flask("receiver")
    receiver.add_url_rule("/done", view_func=lambda: got.append(_json()) or "", methods=["POST"])
    with serving(receiver) as url, vendor.Vendor(simulator.settings, context.traceparent) as api:
        command = api.order("SN-1", {"areas": ["kitchen"]}, "key-1", callback_url=f"{url}/done")
        eventually(lambda: got)

    assert [(each["name"], each["state"]) for each in got] == [(command.name, "SUCCEEDED")]


def _json():
    return flask.request.get_json()


# --- cancelling ----------------------------------------------------------------------------------
def running(ctx):
    return bool(ctx.reports) and ctx.reports[-1][0] > 0


def state_of(simulator, robot="SN-1"):
    with vendor.Vendor(simulator.settings, FakeContext().traceparent) as api:
        status = api._call("GET", f"robots/{robot}/status")
    return httpx.Response(200, content=status.body).json()["command"]["state"]


def test_cancelling_stops_the_robot(simulator, context):
    simulator.job(seconds=2)
    context.cancel = running

    with pytest.raises(PermanentError) as caught:
        follow(order(), context)

    assert caught.value.type == "cancelled"
    assert state_of(simulator) == "CANCELLED"


def test_cancelling_a_step_that_died_before_its_wait_stops_its_robot(simulator, context):
    simulator.job(seconds=60)
    clean(order(), context)  # its wait is lost
    context.cancel = lambda _: True

    with pytest.raises(PermanentError) as caught:
        clean(order(), context)

    assert caught.value.type == "cancelled"
    assert state_of(simulator) == "CANCELLED"
    assert simulator.orders["key-1"]["created"] == 1


def test_a_retry_that_is_cancelled_gives_no_new_order(simulator, context):
    with pytest.raises(RetryableError):
        follow(order("SN-STUCK"), context)

    with pytest.raises(PermanentError) as caught:
        clean(order("SN-STUCK"), dataclasses.replace(retried(context), cancel=lambda _: True))

    assert caught.value.type == "cancelled"
    assert simulator.orders["key-1"] == {"received": 1, "created": 1}


def test_cancelling_through_trouble_still_stops_the_robot(simulator, context):
    simulator.job(seconds=2)
    context.cancel = _act_and_cancel(lambda: simulator.fault(match="commands", status=503))

    with pytest.raises(PermanentError):
        follow(order(), context)

    assert context.log.events[-1] == "stopping the robot failed"
    assert state_of(simulator) == "CANCELLED"


def test_a_robot_that_could_not_be_stopped_is_reported(simulator, context):
    simulator.job(seconds=2)
    context.cancel = _act_and_cancel(lambda: simulator.fault(match="commands", status=503, times=None))

    with pytest.raises(PermanentError) as caught:
        follow(order(), context)

    assert caught.value.type == "cancelled"
    assert "may continue" in str(caught.value)


def test_cancelling_a_robot_that_has_just_finished_is_a_success(simulator, context):
    simulator.job(seconds=0.5)
    context.cancel = _act_and_cancel(lambda: eventually(lambda: state_of(simulator) == "SUCCEEDED"))

    assert follow(order(), context)["state"] == "SUCCEEDED"


def _act_and_cancel(action):
    return _act(action, cancel=True)


def _act(action, *, cancel=False):
    """Do something once, as soon as the robot works."""
    done = []

    def cancelled(ctx):
        if not done and running(ctx):
            done.append(action())
        return cancel and bool(done)

    return cancelled
