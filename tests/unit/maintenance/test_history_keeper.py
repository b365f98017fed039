from dispatch.errors import StoreUnavailable
from dispatch.maintenance import history_keeper
from dispatch.maintenance.history_keeper import HistoryKeeper
from dispatch.telemetry import metrics


class Minutes:
    def __init__(self):
        self.added, self.error = [], None

    def add(self, minute, figures):
        if self.error is not None:
            raise self.error
        self.added.append((minute, {name: count for name, count in figures.items() if count}))


def test_only_what_was_added_is_written():
    counts, minutes, now = {"succeeded": 5}, Minutes(), [600.0]
    keeper = HistoryKeeper(minutes, lambda: counts, lambda: now[0])
    counts = {"succeeded": 7, "failed": 1}
    keeper.step()
    now[0] = 660.0
    keeper.step()
    counts = {"succeeded": 8, "failed": 1}
    keeper.finish()

    assert minutes.added == [(10, {"succeeded": 2, "failed": 1}), (11, {}), (11, {"succeeded": 1})]


def test_what_redis_did_not_take_is_written_later():
    counts, minutes = {"succeeded": 0}, Minutes()
    keeper = HistoryKeeper(minutes, lambda: counts, lambda: 0.0)
    counts = {"succeeded": 3}
    minutes.error = StoreUnavailable("away")
    keeper.finish()  # raises nothing
    minutes.error = None
    keeper.step()

    assert minutes.added == [(0, {"succeeded": 3})]


def test_the_counts_are_those_of_the_metrics():
    before = history_keeper.totals()
    for outcome in ("succeeded", "retried", "worker-lost", "dead", "waited"):
        metrics.ATTEMPTS.inc("echo", outcome)
    metrics.DURATION.observe(0.02, "echo")
    metrics.DURATION.observe(10_000, "echo")
    metrics.QUEUE_TIME.observe(0.02, "echo")
    added = {
        name: count - before.get(name, 0)
        for name, count in history_keeper.totals().items()
        if count != before.get(name, 0)
    }

    assert added == {"succeeded": 1, "failed": 2, "dead": 1, "run:0.05": 1, "run:inf": 1, "wait:0.05": 1}
