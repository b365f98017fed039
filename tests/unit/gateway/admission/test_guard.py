from hypothesis import given
from hypothesis import strategies as st

from dispatch.gateway.admission import guard as admission
from dispatch.gateway.admission.guard import DepthReading, Guard, LaneGuards, drain_rate, retry_after
from dispatch.protocol.lanes import NO_LANES, parse_lanes
from support.cases import each


@each(
    ("readings", "rate"),
    [
        ([], None),
        ([DepthReading(0, 5)], None),
        ([DepthReading(0, 5), DepthReading(0.5, 5)], None),
        ([DepthReading(0, 100), DepthReading(10, 60)], 4.0),
        ([DepthReading(0, 100, accepted=0), DepthReading(10, 100, accepted=50)], 5.0),
        ([DepthReading(0, 100, accepted=20), DepthReading(5, 999), DepthReading(10, 110, accepted=70)], 4.0),
        ([DepthReading(0, 100), DepthReading(10, 300)], 0.0),
        ([DepthReading(0, 0), DepthReading(10, 100, accepted=120)], None),
        ([DepthReading(0, 0), DepthReading(9, 0), DepthReading(10, 100, accepted=120), DepthReading(12, 80, accepted=120)], 10.0),
        ([DepthReading(0, 50), DepthReading(1, 0), DepthReading(9, 0), DepthReading(10, 80, accepted=90)], 50.0),
    ],
    ids=[
        "none", "one", "too close", "shrinking", "steady", "growing slower than accepted", "others fill it",
        "it was empty", "idle, then a burst", "a burst before",
    ],
)  # fmt: skip
def test_the_drain_rate_is_what_was_accepted_less_the_growth(readings, rate):
    assert rate == drain_rate(readings)


@each(
    ("excess", "rate", "stalled", "seconds"),
    [
        (100, 10.0, 0, 10),
        (101, 10.0, 99, 11),
        (0, 10.0, 0, 1),
        (-5, 10.0, 0, 1),
        (1, 1_000.0, 0, 1),
        (10_000, 1.0, 0, 300),
        (5, 0.0, 0.5, 5),
        (5, None, 0, 5),
        (5, None, 17.2, 18),
        (5, 0.0, 17.2, 18),
        (5, None, 9_999, 300),
    ],
)
def test_retry_after_is_the_excess_over_the_rate_or_as_long_as_nothing_has_left(excess, rate, stalled, seconds):
    assert seconds == retry_after(excess, rate, stalled)


@given(st.integers(-10, 10**9), st.none() | st.floats(0, 10**9), st.floats(-1, 10**9))
def test_retry_after_is_always_within_its_bounds(excess, rate, stalled):
    assert 1 <= retry_after(excess, rate, stalled) <= 300


def test_only_a_fresh_reading_over_the_limit_shuts_the_guard():
    guard = Guard(100)
    assert not guard.full(now=0)

    guard.observe(100, at=0)
    assert not guard.full(now=0)

    guard.observe(101, at=1)
    assert guard.full(now=1)
    assert guard.full(now=6)
    assert not guard.full(now=6.1)


def test_what_this_process_accepted_counts_as_drained_when_the_depth_stays():
    guard = Guard(100)
    guard.observe(200, at=0)
    for _ in range(100):
        guard.accepted()
    guard.observe(200, at=10)

    assert guard.refusal(now=10).headers["Retry-After"] == "10"


def waits(guard, *at):
    return [int(guard.refusal(now=now).headers["Retry-After"]) for now in at]


def test_a_rate_measured_by_the_broker_counts_while_it_is_fresh_and_nothing_was_seen_to_leave():
    guard = Guard(100)
    guard.observe(500, at=0)
    guard.measured(None, at=0)
    guard.measured(50.0, at=1)
    guard.observe(500, at=10)
    fresh = waits(guard, 10)
    guard.observe(500, at=17)
    stale = waits(guard, 17)
    guard.observe(480, at=18)

    assert (fresh, stale) == ([8], [17])
    assert waits(guard, 18) == [152]  # 20 in the last 8 seconds


def test_after_an_idle_time_a_burst_waits_for_what_was_seen_to_leave_whatever_rate_the_broker_has():
    guard = Guard(100)
    for second in range(10):
        guard.observe(0, at=second)
    for _ in range(150):
        guard.accepted()
    guard.observe(120, at=10)
    guard.measured(0.0, at=10)
    first = waits(guard, 10)
    guard.observe(110, at=11)
    guard.measured(0.0, at=12)

    assert first == [admission.UNMEASURED]
    assert waits(guard, 11, 15) == [1, 1]  # ten a second


def test_while_others_fill_the_queue_the_brokers_rate_comes_before_a_lower_bound():
    guard = Guard(100)
    guard.observe(50, at=0)
    guard.accepted()
    guard.accepted()
    guard.observe(51, at=1)
    guard.observe(140, at=2)
    guard.measured(10.0, at=2)

    assert waits(guard, 2) == [4]


def test_a_queue_that_does_not_drain_is_asked_for_less_and_less_often():
    guard = Guard(100)
    guard.observe(90, at=0)
    for second in range(1, 402):
        guard.observe(200, at=second)
        guard.measured(0.0, at=second)

    assert waits(guard, 401) == [300]
    guard.observe(100, at=402)
    guard.observe(101, at=403)
    assert waits(guard, 403) == [1]  # a hundred have left


def test_old_readings_are_dropped():
    guard = Guard(100)
    guard.observe(100_000, at=0)
    for second in range(20, 31):
        guard.observe(200, at=second)

    assert waits(guard, 30) == [10]  # for which nothing has left


def test_a_broker_that_refuses_while_nothing_is_known_gets_a_short_wait():
    assert str(admission.UNMEASURED) == Guard(100).refusal().headers["Retry-After"]


def test_the_guard_is_busy_from_half_the_limit_on():
    guard = Guard(100)
    assert not guard.busy

    guard.observe(50)
    assert not guard.busy
    guard.observe(51)
    assert guard.busy


def test_each_lane_has_a_guard_of_its_own():
    limits = {"robot.task.q": 10, "robot.task.q.bulk": 10, "robot.task.q.robots": 3}
    guards = LaneGuards(limits, parse_lanes("bulk=echo;robots=robot.*"))
    guards.of("echo").observe(11)

    assert [guards.of(name).full() for name in ("echo", "robot.clean", "other")] == [True, False, False]
    assert guards.of("other") is guards.of_queue("robot.task.q") is guards
    assert guards.of("robot") is guards.of_queue("robot.task.q.robots")
    assert (guards.full(), guards.refuses()) == (False, True)


def test_a_lane_may_have_a_limit_of_its_own():
    limits = {"robot.task.q": 10, "robot.task.q.bulk": 100, "robot.task.q.robots": 3}
    guards = LaneGuards(limits, parse_lanes("bulk=echo;robots=robot.*"))
    for name in ("echo", "robot.clean", "other"):
        guards.of(name).observe(11)

    assert [guards.of(name).full() for name in ("echo", "robot.clean", "other")] == [False, True, True]


def test_without_lanes_there_is_one_guard():
    guards = LaneGuards({"robot.task.q": 10}, NO_LANES)

    assert guards.of("echo") is guards.of_queue("robot.task.q") is guards
