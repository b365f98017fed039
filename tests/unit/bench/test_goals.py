import dataclasses

from bench.harness.results import ResultRow
from bench.harness.statistics import Spread
from bench.parts import failures, gateway, growth, latency, system, worker
from bench.report.goals import GOALS, UNBOUNDED, Goal, verdicts
from support.bench_results import of_every_part, result
from support.cases import each

RESULTS = {one.part: one for one in of_every_part()}


def _found(part, figure):
    return [verdict for verdict in verdicts(RESULTS) if (verdict.goal.part, verdict.goal.figure) == (part, figure)]


def test_a_ratio_is_ours_to_the_peer_in_the_same_case():
    (verdict,) = _found(gateway.NAME, "requests/s")

    assert verdict.found == Spread(median=0.55, low=0.5, high=0.6, count=3)
    assert not verdict.met


def test_a_floor_must_be_met_and_without_one_the_goal():
    celery, dramatiq = _found(worker.NAME, "tasks/s")

    assert celery.met
    assert not dramatiq.met


def test_work_per_cpu_leaves_the_client_and_parts_of_a_program_out():
    celery, _ = _found(worker.NAME, "tasks/s")
    row = ResultRow("c", "ours", {"server CPU µs": [6], "Redis CPU µs": [2], "client CPU µs": [50], "p99 ms": [7]})
    peer = ResultRow("c", "peer", {"server CPU µs": [3], "Redis CPU µs": [1], "main process CPU µs": [9]})

    assert dataclasses.replace(celery, row=row, peer=peer).per_cpu == Spread(0.5, 0.5, 0.5, 1)
    assert dataclasses.replace(celery, peer=None).per_cpu is None


def test_a_bound_without_a_peer_is_on_the_median():
    (verdict,) = _found(system.NAME, "tasks/s")

    assert verdict.found.median == 650
    assert verdict.met


def test_a_long_queue_is_compared_with_the_empty_one():
    (verdict,) = _found(growth.NAME, "requests/s")

    assert (verdict.row.variant, verdict.peer.variant) == ("100,000 waiting", growth.EMPTY)
    assert not verdict.met


@each(("value", "met"), [(9.0, True), (10.0, True), (10.1, False)])
def test_less_is_better_where_the_bound_is_the_most(value, met):
    goal = Goal("x", "case", "ms", 10, at_most=True)

    (verdict,) = verdicts({"x": result("x", [ResultRow("case 1", "ours", {"ms": [value]})])}, [goal])

    assert verdict.met is met


def test_a_part_or_a_variant_that_was_not_measured_has_no_verdict():
    without_peers = dataclasses.replace(
        RESULTS[gateway.NAME], rows=[row for row in RESULTS[gateway.NAME].rows if row.variant == "ours"]
    )

    assert verdicts({}) == []
    assert verdicts({gateway.NAME: without_peers}) == []


def test_a_pool_of_threads_has_its_own_bound_whatever_their_number():
    threads = ResultRow(worker.CASE, "ours, --pool=threads 2 × 8", {"tasks/s": [5_000.0]})  # noqa: RUF001 - as in the table
    rows = [*RESULTS[worker.NAME].rows, threads]

    found = verdicts({worker.NAME: dataclasses.replace(RESULTS[worker.NAME], rows=rows)})

    assert [(one.row.variant, one.met) for one in found] == [("ours", True), ("ours", False), (threads.variant, True)]


def test_every_part_has_a_bound_or_is_named_as_one_without():
    bounded = {goal.part for goal in GOALS}

    assert bounded | set(UNBOUNDED) == {part.NAME for part in (gateway, worker, latency, system, growth, failures)}
    assert not bounded & set(UNBOUNDED)
