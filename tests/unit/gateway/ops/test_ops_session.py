import dataclasses

import pytest

from dispatch.gateway.ops import door, timeline
from dispatch.gateway.ops.filters import duration, relative
from dispatch.gateway.ops.session import Sessions
from dispatch.protocol.record import State
from support.cases import each
from support.gateway_fakes import record

NOW = 1_800_000_000.0


@pytest.fixture
def sessions():
    return Sessions("pepper", idle=600, longest=3_600)


def test_a_session_survives_its_cookie(sessions):
    session = sessions.new("abcdef012345", NOW)

    assert session == sessions.read(sessions.write(session), NOW)
    assert session.until == NOW + 600


@each("text", [None, "", ".", "a.b.c.d.e", "x" * 10_000])
def test_what_is_no_cookie_of_ours_is_no_session(sessions, text):
    assert sessions.read(text, NOW) is None


def test_an_altered_cookie_is_no_session(sessions):
    text = sessions.write(sessions.new("abcdef012345", NOW))
    for old, new in [
        ("abcdef", "abcdee"),
        (".1800000600.", ".1900000600."),
        (text[-1], "0" if text[-1] != "0" else "1"),
    ]:
        assert sessions.read(text.replace(old, new), NOW) is None


def test_a_cookie_of_another_secret_is_no_session(sessions):
    other = Sessions("other", idle=600, longest=3_600)

    assert sessions.read(other.write(other.new("", NOW)), NOW) is None


def test_a_session_ends_after_idleness_and_after_its_longest_time(sessions):
    session = sessions.new("", NOW)
    assert sessions.read(sessions.write(session), NOW + 599) == session
    assert sessions.read(sessions.write(session), NOW + 600) is None
    renewed = sessions.renewed(session, NOW + 500)
    assert renewed == dataclasses.replace(session, until=session.began + 1_100)
    late = dataclasses.replace(session, until=session.began + 3_500)

    assert sessions.renewed(late, NOW + 3_499) is None  # it would gain next to nothing
    assert sessions.renewed(session, NOW + 10) is None


def test_the_token_of_a_form_is_that_of_its_session_alone(sessions):
    one, two = sessions.new("", NOW), sessions.new("", NOW)

    assert sessions.fits(one, sessions.token(one))
    assert not sessions.fits(one, sessions.token(two))
    assert not sessions.fits(one, sessions.write(one)[-64:])  # the cookie's own signature is none
    assert not sessions.fits(one, "é")


@each(
    "wanted",
    ["", "https://evil.example/ops", "//evil.example", "/\\evil.example", "/ops\\..", "/opsx", "/v1/tasks", "/ops/../v1", "/ops//evil",
     "/ops?next=//x", "/ops/\n", "javascript:alert(1)", "/ops/sign-in", "/ops/sign-out"],
)  # fmt: skip
def test_a_sign_in_leads_to_no_other_place(wanted):
    assert door.way_back(wanted) == "/ops"


@each("wanted", ["/ops", "/ops/tasks", "/ops/tasks?state=FAIL&label=a%3Db", "/ops?x=1"])
def test_a_sign_in_leads_back(wanted):
    assert door.way_back(wanted) == wanted


@each(
    ("seconds", "text"),
    [
        (0.042, "42 ms"),
        (3.21, "3.2 s"),
        (42, "42 s"),
        (90, "1 min 30 s"),
        (3_600, "1 h"),
        (7_260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_their_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_times_are_recognised_by_their_distance():
    assert [relative(-90), relative(90), relative(0.2)] == ["1 min 30 s ago", "in 1 min 30 s", "now"]


def hop(kind, at, **more):
    return {"kind": kind, "at": f"2027-01-15T08:00:{at:06.3f}Z", **more}


HOPS = [
    hop("accepted", 0.0), hop("published", 0.002), hop("started", 0.1, attempt=1, worker="w1"), hop("progress", 0.15, percent=50),
    hop("failed", 0.2, attempt=1, errorType="boom", message="it broke"), hop("delayed", 0.21, seconds=30, until="2027-01-15T08:00:30.210Z"),
    hop("started", 31.0, attempt=2, worker="w1"), hop("succeeded", 31.5, attempt=2),
]  # fmt: skip


def test_the_timeline_has_each_stretch_in_its_proportion():
    drawn = timeline.draw(HOPS, record(state=State.SUCCEEDED), 0)

    assert [each.kind for each in drawn] == ["queued", "running", "failed", "waiting", "running"]
    assert [round(each.seconds, 3) for each in drawn] == [0.1, 0.1, 0.01, 30.79, 0.5]
    assert drawn[3].width == max(each.width for each in drawn)
    assert sum(each.width for each in drawn) == pytest.approx(1_000, abs=1)


def test_what_goes_on_is_open():
    (only,) = timeline.draw(HOPS[:2], record(), timeline.moment(HOPS[0]["at"]) * 1_000 + 5_000)

    assert (only.open, only.seconds) == (True, pytest.approx(5))


def test_the_timeline_of_many_hops_fits():
    hops = [hop(kind, at / 10) for at, kind in enumerate(["started", "stopped"] * 200)]

    assert sum(each.width for each in timeline.draw(hops, record(), 0)) <= 1_001


def test_attempts_have_their_errors_latest_first():
    second, first = timeline.attempts(HOPS)

    assert (first.number, first.outcome, first.error_type, first.message) == (1, "failed", "boom", "it broke")
    assert (second.number, second.outcome, second.worker) == (2, "succeeded", "w1")
    assert second.seconds == pytest.approx(0.5)
