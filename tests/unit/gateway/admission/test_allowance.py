"""What a principal's tasks hold against its quotas: which is used up, what the headers have, when the counts are mended."""

import pytest

from dispatch.config.settings import load
from dispatch.errors import StoreUnavailable
from dispatch.gateway.admission import allowance as module
from dispatch.gateway.admission.allowance import Allowances
from dispatch.gateway.http.headers import joined
from dispatch.store.usage import Held
from support.cases import each
from support.unit_fakes import ManualClock

QUOTAS = {"QUOTA_OPEN_TASKS": "10", "QUOTA_STORED_BYTES": "1000", "QUOTA_DEAD_LETTERS": "5"}


class Counts:
    """Counts that a mending changes."""

    def __init__(self, held, mended=None, known=None):
        self.held, self.mended, self.mendings, self.known, self.reads = held, mended, 0, known, 0

    def lately(self, _principal):
        return self.known

    def read(self, _principal):
        self.reads += 1
        if isinstance(self.held, Exception):
            raise self.held
        return self.held

    def mend(self, _principal):
        self.mendings += 1
        self.held = self.mended or self.held


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def allowances(counts, **quotas):
    return Allowances(counts, load({f"DISPATCH_{name}": value for name, value in {**QUOTAS, **quotas}.items()}))


@each(
    ("held", "quota"),
    [
        (Held(9, 4, 999), None),
        (Held(10, 0, 0), "open-tasks"),
        (Held(0, 0, 1_000), "stored-bytes"),
        (Held(0, 5, 0), "dead-letters"),
        (Held(11, 6, 1_001), "open-tasks"),
    ],
)
def test_the_first_quota_without_room_for_another_task_refuses_it(held, quota):
    refusal = allowances(Counts(held)).of("ada").refusal

    assert (refusal and refusal.members["quota"]) == quota
    assert refusal is None or (refusal.kind.slug, refusal.kind.status) == ("quota-exceeded", 429)
    assert refusal is None or refusal.headers["Retry-After"] == ("60" if quota == "dead-letters" else "5")


def test_the_headers_have_each_quota_and_what_is_left_of_it():
    assert allowances(Counts(Held(3, 6, 100))).of("ada").headers == {
        "RateLimit-Policy": '"open-tasks";q=10, "stored-bytes";q=1000;qu="content-bytes", "dead-letters";q=5',
        "RateLimit": '"open-tasks";r=7, "stored-bytes";r=900, "dead-letters";r=0',
    }


@each(
    ("known", "reads"),
    [
        (Held(7_499, 1_000, 10**7), 0),
        (Held(7_500, 1_000, 10**7), 1),  # a quarter of the open tasks is left
        (Held(0, 4_000, 0), 1),  # room for a thousand dead letters
        (Held(0, 0, 60_000_000), 1),
        (None, 1),
    ],
)
def test_far_from_every_quota_the_last_count_is_good_for_a_second(known, reads):
    wide = {"QUOTA_OPEN_TASKS": "10000", "QUOTA_STORED_BYTES": "67108864", "QUOTA_DEAD_LETTERS": "5000"}
    counts = Counts(Held(9_999, 0, 0), known=known)
    shown = allowances(counts, **wide).of("ada").headers["RateLimit"]

    assert (counts.reads, '"open-tasks";r=1,' in shown) == (reads, bool(reads))


def test_a_small_quota_is_read_each_time():
    counts = Counts(Held(10, 0, 0), known=Held(0, 0, 0))

    assert allowances(counts).of("ada").refusal is not None


def test_a_quota_of_0_is_none():
    counts = Counts(Held(99, 99, 99))

    assert allowances(counts, QUOTA_OPEN_TASKS="0", QUOTA_DEAD_LETTERS="0").of("ada").refusal is None
    assert allowances(StoreUnavailable(), **dict.fromkeys(QUOTAS, "0")).of("ada").headers == {}


def test_wrong_counts_are_mended_before_a_refusal_but_not_before_each(clock):
    drifted = Counts(Held(10, 0, 0), mended=Held(2, 0, 0))
    full = Counts(Held(10, 0, 0))
    made = allowances(full)

    assert allowances(drifted).of("ada").refusal is None
    assert [made.of("ada").refusal is not None for _ in range(3)] == [True] * 3
    assert full.mendings == 1
    clock.sleep(module.MEND_INTERVAL)
    made.of("ada")
    made.of("bob")
    assert full.mendings == 3


def test_without_redis_nothing_is_refused_here():
    assert allowances(Counts(StoreUnavailable())).of("ada").refusal is None


@each(
    ("first", "second", "both"),
    [
        ({}, {}, {}),
        ({"A": "1"}, {}, {"A": "1"}),
        ({}, {"A": "2"}, {"A": "2"}),
        ({"A": "1", "B": "3"}, {"A": "2"}, {"A": "1, 2", "B": "3"}),
    ],
)
def test_headers_of_two_sources_are_one_list(first, second, both):
    assert joined(first, second) == both
