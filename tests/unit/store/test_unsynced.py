"""What is kept to be repeated: by time while Redis answers, until it was checked where it did not, and never without a bound."""

import pytest

from dispatch.store import unsynced
from dispatch.store.unsynced import Unsynced


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(unsynced, "KEPT", 0.0)
    return Unsynced()


def _note(kept, count):
    for number in range(count):
        kept.note(lambda number=number: number, 3_010)


def _answers(kept):
    return [repeat() for repeat in kept.repeats()]


def test_what_is_on_the_disk_by_now_is_dropped(kept):
    _note(kept, 100)

    assert _answers(kept) == [99]


def test_where_redis_did_not_answer_all_is_kept_until_it_was_checked(kept):
    kept.failed()
    _note(kept, 100)
    held = _answers(kept)
    kept.checked(0)  # by a check that began before
    still = _answers(kept)
    kept.checked(1)

    assert held == still == list(range(100))
    assert _answers(kept) == []


def test_the_oldest_go_where_they_would_take_too_much_memory(kept):
    kept.failed()
    _note(kept, 3)
    kept.note(lambda: "large", unsynced.MOST - 2_000)

    assert _answers(kept) == ["large"]
