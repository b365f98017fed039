"""What computes for long is done elsewhere, where there is an elsewhere."""

import threading

import pytest

from dispatch.gateway.http import heavy
from dispatch.gateway.http.problems import Problem
from support.waiting import eventually


def test_only_long_work_is_done_elsewhere(monkeypatch):
    done = []
    monkeypatch.setattr(heavy, "_elsewhere", lambda work: done.append(work) or work())

    assert heavy.run(heavy.SMALL, lambda: 1) == 1
    assert done == []
    assert heavy.run(heavy.SMALL + 1, lambda: 2) == 2
    with pytest.raises(ZeroDivisionError):
        heavy.run(heavy.SMALL + 1, lambda: 1 // 0)
    assert len(done) == 2


def test_without_an_elsewhere_the_request_computes_by_itself():
    with pytest.raises(ZeroDivisionError):
        heavy.run(10**9, lambda: 1 // 0)


def test_work_whose_turn_does_not_come_is_refused(monkeypatch):
    monkeypatch.setattr(heavy, "_elsewhere", lambda work: work())
    monkeypatch.setattr(heavy, "MOST", 1)
    monkeypatch.setattr(heavy, "PATIENCE", 30.0)
    held, refused = threading.Event(), []

    def waits():
        try:
            heavy.run(heavy.SMALL + 1, held.wait)
        except Problem as exc:
            refused.append(exc.kind.slug)

    threads = [threading.Thread(target=waits) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: heavy._one.locked() and heavy._waiting == 1, 10, "one runs, one waits")
        with pytest.raises(Problem, match="one at a time"):  # as many as may wait do so
            heavy.run(heavy.SMALL + 1, lambda: 1)
        monkeypatch.setattr(heavy, "PATIENCE", 0.01)
        monkeypatch.setattr(heavy, "MOST", 2)
        with pytest.raises(Problem, match="one at a time"):  # its turn does not come in time
            heavy.run(heavy.SMALL + 1, lambda: 1)
    finally:
        held.set()
        for thread in threads:
            thread.join()

    assert refused == []
    assert heavy.run(heavy.SMALL + 1, lambda: 1) == 1
