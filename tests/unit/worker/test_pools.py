"""Which pool a worker has: what is refused with it, and which time limits fit it."""

import pytest
from celery.concurrency import prefork, solo

from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from dispatch.worker import pools
from dispatch.worker.pools import PoolPlan
from dispatch.worker.prefork import TaskPool
from dispatch.worker.threads.places import most_runaways
from dispatch.worker.threads.pool import ThreadPool
from support.cases import each

SETTINGS = load({})
PREFORK = PoolPlan(threads=False, slots=2, prefetch=40, most=8)


@each(
    ("options", "plan"),
    [
        ({}, PREFORK),
        ({"pool_cls": TaskPool, "autoscale": (8, 2)}, PREFORK),
        ({"pool": "prefork"}, PREFORK),
        ({"pool_cls": ThreadPool}, PoolPlan(threads=True, slots=40, prefetch=40, most=40)),
        ({"pool_cls": ThreadPool, "concurrency": 10}, PoolPlan(threads=True, slots=10, prefetch=40, most=10)),
        ({"pool_cls": ThreadPool, "concurrency": 100}, PoolPlan(threads=True, slots=100, prefetch=100, most=100)),
    ],
)
def test_the_pool_that_a_command_line_asks_for(options, plan):
    assert pools.plan(options, SETTINGS) == plan


@each(
    ("options", "text"),
    [
        ({"pool_cls": solo.TaskPool}, "the prefork pool"),
        ({"pool_cls": prefork.TaskPool}, "the prefork pool"),  # Celery's own, with its fault
        ({"purge": True}, "has been accepted"),
        ({"pool_cls": ThreadPool, "autoscale": (8, 2)}, "--autoscale is refused with --pool=threads"),
        ({"pool_cls": ThreadPool, "max_tasks_per_child": 9}, "--max-tasks-per-child is refused"),
        ({"pool_cls": ThreadPool, "concurrency": "auto"}, "--concurrency=auto is refused"),
    ],
)
def test_what_a_pool_can_not_have_is_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        pools.plan(options, SETTINGS)


def test_threads_have_no_control_command_of_processes():
    settings = load({}, control_commands="shutdown,terminate")

    assert pools.plan({}, settings) == PREFORK
    with pytest.raises(ConfigurationError, match="terminate can't work with --pool=threads"):
        pools.plan({"pool_cls": ThreadPool}, settings)


@each(
    ("slots", "prefetch", "longest"),
    [(2, 40, 540), (40, 40, 1_800), (40, 80, 1_800), (4, 40, 1_080), (1, 40, 270)],
)
def test_a_type_must_end_before_the_broker_loses_patience(slots, prefetch, longest):
    plan = PoolPlan(threads=True, slots=slots, prefetch=prefetch, most=slots)

    def check(limit):
        pools.check_time_limits({"a": TaskType("a", Payload, print, None, limit, "")}, SETTINGS, plan)

    check(longest)
    with pytest.raises(ConfigurationError, match=rf"must not exceed {longest:g} s, .* on {slots} threads"):
        check(longest + 1)


@each(("slots", "most"), [(1, 1), (2, 1), (4, 1), (8, 2), (40, 10)])
def test_a_quarter_of_the_slots_may_be_runaways(slots, most):
    assert most_runaways(slots) == most


@each(
    ("options", "most"),
    [
        ({}, 8),
        ({"autoscale": "6,2"}, 6),
        ({"autoscale": (6, 2)}, 6),
        ({"concurrency": 3}, 3),
        ({"autoscale": "x"}, 8),
        ({"concurrency": "auto"}, 8),
    ],
)
def test_the_most_that_run_at_once_are_as_the_command_line_has_them(options, most):
    assert pools.plan(options, load({})).most == most
