"""What is judged: each rule is a function that yields what it finds wrong; `RULES` names the promise that each one guards. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from support.chaos.rules import (
    acceptance,
    cancellations,
    children,
    dead_letters,
    effects,
    keys,
    ladder,
    operators,
    pauses,
    rest,
    schedules,
    waits,
    webhooks,
)
from support.chaos.view import View

RULES: dict[str, Callable[[View], Iterator[tuple[str, str]]]] = {
    "P1 accepted means done": acceptance.accepted_has_ended,
    "P2 one order, one task": acceptance.one_order_is_one_task,
    "P2 refused means never": acceptance.refused_left_nothing,
    "P3 applied once": effects.effect_is_applied_once,
    "P3 succeeded once": effects.succeeds_once,
    "P3 never unclaimed": effects.runs_are_claimed,
    "P4 one dead letter a death": dead_letters.dead_letters_are_true,
    "P4 poison is buried": dead_letters.poison_is_buried,
    "P4 discarded on request": dead_letters.discards_are_wanted,
    "P6 dead letters are listed": dead_letters.dead_letters_are_listed,
    "P4 no failure without a cause": effects.failures_have_a_cause,
    "P5 the ladder": ladder.ladder_is_climbed,
    "P5 delays": waits.delays_are_kept,
    "waits": waits.waits_are_kept,
    "signals": waits.signals_are_kept,
    "callbacks": waits.callbacks_are_kept,
    "deadlines": waits.deadlines_are_kept,
    "cancelled stays cancelled": cancellations.cancelled_is_the_end,
    "cancelled has no effect": cancellations.cancelled_has_no_effect,
    "cancelled is undone": cancellations.cancelled_is_undone,
    "paused": pauses.nothing_starts_in_a_pause,
    "one at a time": keys.places_are_kept,
    "so many at a time": keys.rates_are_kept,
    "schedules": schedules.due_times_are_kept,
    "children": children.children_are_submitted_once,
    "webhooks": webhooks.ends_are_announced,
    "jobs": operators.jobs_end,
    "audit": operators.acts_are_in_the_audit_log,
    "P7 answered in time": rest.answers_come_in_time,
    "drains by itself": rest.everything_drains,
    "nothing is left": rest.nothing_is_left,
    "records are consistent": rest.records_are_consistent,
    "conservation": acceptance.accepted_is_ended_and_in_flight,
}
