"""The verdict: facts in, violations out. Pure.

Each rule is a function that yields what it finds wrong; `RULES` names the promise that each one guards.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from support.chaos.facts import Facts, Task
from support.chaos.view import View, label

BURIED = frozenset({"DEAD_LETTERED", "EXPIRED"})
ENDED = frozenset({"SUCCESS", "FAIL"})

#: Milliseconds; hops are dated to the millisecond.
ROUNDING = 1


@dataclasses.dataclass(frozen=True)
class Violation:
    """A broken promise."""

    rule: str
    subject: str  #: a task id, a label, or a queue
    text: str


# --- P1, P2 --------------------------------------------------------------------------------------
def accepted_has_ended(view: View) -> Iterator[tuple[str, str]]:
    """Every 202 ended SUCCESS or FAIL, and was not given up as if it had been refused."""
    for order in view.facts.orders:
        for task_id in view.accepted(order):
            task = view.tasks.get(task_id)
            if task is None:
                yield task_id, f"accepted ({order.label}), and there is no such task"
            elif task.view["status"] not in ENDED:
                yield task_id, f"accepted, and still {task.view['state']}"
            elif task.view["state"] == "REJECTED":
                yield task_id, "accepted, and then rejected"


def one_order_is_one_task(view: View) -> Iterator[tuple[str, str]]:
    """An order is never two tasks, however often and by how many it was sent."""
    for order in view.facts.orders:
        ids = view.accepted(order) | view.ran[order.label]
        if len(ids) > 1:
            yield order.label, f"is {len(ids)} tasks: {', '.join(sorted(ids))}"


def refused_left_nothing(view: View) -> Iterator[tuple[str, str]]:
    """What was refused never ran; what ran under an accepted order is the accepted task."""
    for order in view.facts.orders:
        accepted = view.accepted(order)
        if view.unknown(order) and not accepted:
            continue
        for task_id in view.ran[order.label] - accepted:
            yield (
                task_id,
                f"is a living task of {order.label}, which was {'accepted as another' if accepted else 'refused'}",
            )
        for delivery in view.deliveries[order.label]:
            if delivery.key not in accepted:
                yield order.label, f"was refused, and reached the ledger as {delivery.key}"


# --- P3 ------------------------------------------------------------------------------------------
def effect_is_applied_once(view: View) -> Iterator[tuple[str, str]]:
    """A task that succeeded has its effect once; one that was refused each time has none."""
    for task in view.facts.tasks:
        order = view.orders.get(label(task))
        if order is None or not order.in_ledger:
            continue
        count = view.facts.effects.get(task.id, 0)
        if task.view["status"] == "SUCCESS" and count != 1:
            yield task.id, f"succeeded, its effect was applied {count} times"
        applied = any(each.outcome == "applied" for each in view.deliveries[order.label] if each.key == task.id)
        if count != applied:
            yield task.id, f"the ledger holds {count} effects, its deliveries applied {int(applied)}"


def succeeds_once(view: View) -> Iterator[tuple[str, str]]:
    """One success, and nothing runs after it."""
    for task in view.facts.tasks:
        kinds = [hop["kind"] for hop in task.hops]
        wanted = int(task.view["status"] == "SUCCESS")
        if kinds.count("succeeded") != wanted:
            yield task.id, f"is {task.view['status']} and succeeded {kinds.count('succeeded')} times"
        elif wanted and {"started", "failed"} & set(kinds[kinds.index("succeeded") :]):
            yield task.id, "ran after its success"


def runs_are_claimed(view: View) -> Iterator[tuple[str, str]]:
    """No delivery without a claim."""
    for task in view.facts.tasks:
        delivered = sum(each.key == task.id for each in view.deliveries[label(task)])
        started = sum(hop["kind"] == "started" for hop in task.hops)
        if delivered > started:
            yield task.id, f"reached the ledger {delivered} times with {started} claims"


# --- P4 ------------------------------------------------------------------------------------------
def dead_letters_are_true(view: View) -> Iterator[tuple[str, str]]:
    """Each dead task has one dead letter, of its cycle and with its reason; no other task has one."""
    for task in view.facts.tasks:
        dead_letters = view.dead_letters.get(task.id, [])
        if task.view["state"] not in BURIED:
            if dead_letters:
                yield task.id, f"is {task.view['state']} and has {len(dead_letters)} dead letters in the DLQ"
            continue
        if len(dead_letters) != 1:
            yield task.id, f"is {task.view['state']} and has {len(dead_letters)} dead letters in the DLQ"
        for dead_letter in dead_letters:
            if (dead_letter.cycle, dead_letter.reason) != (task.view["cycle"], task.inner.get("deadReason")):
                yield task.id, f"its dead letter has cycle {dead_letter.cycle}, {dead_letter.reason or 'no reason'}"
    for task_id in set(view.dead_letters) - set(view.tasks):
        yield task_id, "has a dead letter in the DLQ and is no task"


def dead_letters_are_listed(view: View) -> Iterator[tuple[str, str]]:
    """Operators see each dead task in the API's list, and no living one."""
    listed = set(view.facts.left.listed)
    for task in view.facts.tasks:
        if (task.view["state"] in BURIED) != (task.id in listed):
            yield task.id, f"is {task.view['state']} and {'' if task.id in listed else 'not '}listed as a dead letter"


def poison_is_buried(view: View) -> Iterator[tuple[str, str]]:
    """Each poison message is in the DLQ once, with its reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for dead_letter in view.facts.dead_letters:
        if dead_letter.mark:
            found[dead_letter.mark].append(dead_letter.reason)
    for poison in view.facts.poison:
        if found[poison.mark] != [poison.reason]:
            yield poison.mark, f"({poison.reason}) has dead letters with {found[poison.mark]}"


def failures_have_a_cause(view: View) -> Iterator[tuple[str, str]]:
    """A task fails because it was ordered to, or because workers were lost under it."""
    for task in view.facts.tasks:
        order = view.orders.get(label(task))
        if order is None or task.view["state"] == "REJECTED":
            continue
        wish = order.payload.get("json") or {}
        if task.view["status"] == "SUCCESS":
            if wish.get("permanent") or wish.get("fail") == 999:
                yield task.id, f"succeeded, and was ordered to fail ({order.kind})"
            continue
        reason = task.inner.get("deadReason")
        lost = any(hop.get("errorType") == "worker-lost" for hop in task.hops)
        ordered = {"permanent": "permanent", "hopeless": "retries-exhausted"}.get(order.kind)
        if reason != ordered and not (reason == "retries-exhausted" and lost):
            yield task.id, f"({order.kind}) ended as {task.view['state']}, {reason}, without a cause"


# --- P5 ------------------------------------------------------------------------------------------
def ladder_is_climbed(view: View) -> Iterator[tuple[str, str]]:
    """Rung by rung in order, never early, and to the end before giving up."""
    for task in view.facts.tasks:
        for cycle in cycles(task):
            yield from ((task.id, text) for text in _climb(cycle, view.facts.ladder))


def cycles(task: Task) -> Iterator[list[dict[str, Any]]]:
    """A task's hops, cut at each redrive."""
    part: list[dict[str, Any]] = []
    for hop in task.hops:
        if hop["kind"] == "redriven":
            yield part
            part = []
        part.append(hop)
    yield part


def _climb(hops: list[dict[str, Any]], ladder: list[tuple[str, float]]) -> Iterator[str]:
    failed: dict[str, Any] = {}
    wait = 0.0
    climbed = 0
    for hop in hops:
        match hop["kind"]:
            case "failed":
                failed = hop
            case "delayed" | "parked":
                attempt = failed.get("attempt", 1)
                queue, wait = ladder[min(attempt, len(ladder)) - 1]
                climbed += hop["kind"] == "delayed"
                if hop["kind"] == "delayed" and attempt != climbed:
                    yield f"attempt {attempt} failed after {climbed - 1} rungs"
                if hop["queue"] != queue:
                    yield f"after attempt {attempt} it waited in {hop['queue']}, not in {queue}"
            case "started" if wait:
                waited = hop["at"] - failed["at"]
                if waited + ROUNDING < wait * 1_000:
                    yield f"waited {waited} ms instead of {wait * 1_000:.0f} before attempt {hop.get('attempt')}"
                wait = 0.0
            case "dead-lettered" if hop.get("reason") == "retries-exhausted" and climbed != len(ladder):
                yield f"gave up after {climbed} rungs"


def delays_are_kept(view: View) -> Iterator[tuple[str, str]]:
    """What was submitted for later starts no sooner, and what was not is not delayed."""
    delayed = {order.label for order in view.facts.orders if order.delay}
    for task in view.facts.tasks:
        until = next((hop["until"] for hop in task.hops if hop["kind"] == "published" and hop.get("until")), None)
        started = next((hop["at"] for hop in task.hops if hop["kind"] == "started"), None)
        if until is None:
            continue
        if label(task) not in delayed:
            yield task.id, "was delayed, and its order has no delay"
        early = dt.datetime.fromisoformat(until).timestamp() * 1_000 - (started or float("inf"))
        if early > ROUNDING:
            yield task.id, f"started {early:.0f} ms before {until}"


# --- P7 ------------------------------------------------------------------------------------------
def answers_come_in_time(view: View) -> Iterator[tuple[str, str]]:
    """No answer later than allowed, beyond what the machine itself was late by; a stopped gateway can't answer."""
    stops = [each for each in view.facts.faults if (each.fault.name, each.fault.target) == ("stop", "gateway")]
    for answer in view.facts.answers:
        ended = answer.at + answer.seconds
        if answer.seconds <= view.facts.answer_within or any(
            answer.at <= each.ended and each.began <= ended for each in stops
        ):
            continue
        noise = view.noise_in(answer.at, ended)
        if answer.seconds - noise > view.facts.answer_within:
            end = answer.problem or answer.status or answer.error
            yield answer.label or answer.what, f"{answer.what}: {end} after {answer.seconds:.2f} s (noise {noise:.2f})"


# --- in the end ----------------------------------------------------------------------------------
def everything_drains(view: View) -> Iterator[tuple[str, str]]:
    """Without a hand, in the time that the ladder, the leases and the retries take."""
    left = view.facts.left
    if not left.drained or left.seconds > left.limit:
        yield "system", f"{'drained' if left.drained else 'not drained'} after {left.seconds} s of {left.limit}"


def nothing_is_left(view: View) -> Iterator[tuple[str, str]]:
    """Queues empty, no claim, no dead letter to be taken out, no entry of a task that is gone."""
    left = view.facts.left
    for queue, count in left.queues.items():
        if count:
            yield queue, f"holds {count} messages"
    for name, ids in (("claim", left.claims), ("stale dead letter", left.stale)):
        for task_id in ids:
            yield task_id, f"has a {name} left"
    # Dead letters without a usable task id go by one that the router gave them.
    strangers = {dead_letter.task_id for dead_letter in view.facts.dead_letters if dead_letter.mark}
    for task_id in set(left.due) - set(view.tasks) - strangers:
        yield task_id, "is due for the sweeper and is no task"


def records_are_consistent(view: View) -> Iterator[tuple[str, str]]:
    """A terminal record has an end, and nothing of what only a living one has."""
    for task in view.facts.tasks:
        if task.view["status"] not in ENDED:
            continue
        rest = sorted({"decision", "decidedSeq", "fence", "owner", "before"} & set(task.inner))
        if rest:
            yield task.id, f"is {task.view['state']} with {', '.join(rest)}"
        if task.view["finishedAt"] is None:
            yield task.id, f"is {task.view['state']} without an end"
        if task.view["nextAttemptAt"] is not None:
            yield task.id, f"is {task.view['state']} with another attempt ahead"


def accepted_is_succeeded_plus_failed(view: View) -> Iterator[tuple[str, str]]:
    """Conservation, in numbers."""
    status = Counter(task.view["status"] for task in view.facts.tasks if task.view["state"] != "REJECTED")
    accepted = {task_id for order in view.facts.orders for task_id in view.accepted(order)}
    silent = {task_id for order in view.facts.orders for task_id in view.ran[order.label] if task_id not in accepted}
    total = len(accepted) + len(silent)
    if total != status["SUCCESS"] + status["FAIL"]:
        yield "system", f"{total} accepted, {status['SUCCESS']} succeeded, {status['FAIL']} failed"


RULES: dict[str, Callable[[View], Iterator[tuple[str, str]]]] = {
    "P1 accepted means done": accepted_has_ended,
    "P2 one order, one task": one_order_is_one_task,
    "P2 refused means never": refused_left_nothing,
    "P3 applied once": effect_is_applied_once,
    "P3 succeeded once": succeeds_once,
    "P3 never unclaimed": runs_are_claimed,
    "P4 one dead letter a death": dead_letters_are_true,
    "P4 poison is buried": poison_is_buried,
    "P6 dead letters are listed": dead_letters_are_listed,
    "P4 no failure without a cause": failures_have_a_cause,
    "P5 the ladder": ladder_is_climbed,
    "P5 delays": delays_are_kept,
    "P7 answered in time": answers_come_in_time,
    "drains by itself": everything_drains,
    "nothing is left": nothing_is_left,
    "records are consistent": records_are_consistent,
    "conservation": accepted_is_succeeded_plus_failed,
}


def check(facts: Facts) -> list[Violation]:
    """Every broken promise of a run.

    Args:
        facts: what it has seen.
    """
    view = View(facts)
    return [Violation(name, subject, text) for name, rule in RULES.items() for subject, text in rule(view)]
