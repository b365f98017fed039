"""One run: start the system, let clients and faults at it, wait until it is quiet, look, judge."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from support.chaos import aftermath, faults, ledger, meters, report, schedule
from support.chaos.caller import Caller, Notes
from support.chaos.checker import Violation, check
from support.chaos.clients import Client, Reader
from support.chaos.facts import Call, Delivery, Facts, Hook
from support.chaos.operators import operators
from support.chaos.orders import Book
from support.chaos.system import LADDER, SETTINGS, Machine, running

#: Seconds within which every request must be answered.
ANSWER_WITHIN = 5.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run is made of; the same plan is the same schedule and the same orders."""

    seed: int
    duration: float = 120.0
    clients: int = 6
    workers: int = 2
    rate: float = 20.0  #: orders a second, all clients together
    gap: tuple[float, float] = schedule.GAP  #: seconds between two faults, least and most
    calm: bool = False  #: no faults at all: for memory
    pool: str = "prefork"  #: the workers', or ``threads``
    idle: bool = False  #: no operators: for faults alone

    @property
    def command(self) -> str:
        """How to run it again."""
        more = (" CALM=1" if self.calm else "") + (f" POOL={self.pool}" if self.pool != "prefork" else "")
        more += " ARGS=--idle" if self.idle else ""
        return f"make chaos SEED={self.seed} DURATION={self.duration:g} CLIENTS={self.clients} RATE={self.rate:g}{more}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a run."""

    facts: Facts
    violations: list[Violation]
    text: str


def run(plan: Plan, directory: Path, log: Callable[[str], None]) -> Verdict:
    """Run a plan and judge it.

    Args:
        plan: what to do.
        directory: where the ledger, the facts, the report and, of a failed run, the logs go.
        log: receives a line for each event.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ledger.sqlite").unlink(missing_ok=True)
    with running(plan.workers, directory, worker_pool=plan.pool) as machine:
        log(f"the system runs: {machine.http_url}")
        facts = _observed(plan, machine, log)
        facts.save(directory / "facts.json")
        violations = check(facts)
        if violations:
            machine.keep_logs(directory / "log")
    (directory / "report.json").write_text(json.dumps(report.summary(facts, violations), indent=1))
    text = report.text(facts, violations, plan.command)
    (directory / "report.txt").write_text(text + "\n")
    return Verdict(facts, violations, text)


def _observed(plan: Plan, machine: Machine, log: Callable[[str], None]) -> Facts:
    notes, canary = Notes(), meters.Canary()
    scales = meters.Scales(machine, lambda: len(notes.accepted))
    breaker = faults.Breaker(machine, log)
    planned = [] if plan.calm else schedule.make(plan.seed, plan.duration, plan.workers, plan.gap)
    with _beside(canary.run, scales.run):
        with _customers(plan, machine, notes):
            breaker.carry_out(planned, plan.duration)
        log(f"everything is mended, {len(notes.accepted)} tasks accepted: waiting until it is quiet")
        left = aftermath.settle(machine)
    pages = ledger.read(machine.ledger_file)
    history = aftermath.history(machine)
    return Facts(
        seed=plan.seed,
        duration=plan.duration,
        clients=plan.clients,
        settings={name: str(value) for name, value in SETTINGS.items()},
        ladder=[(f"robot.retry.q.{name}", seconds) for name, seconds in LADDER],
        answer_within=ANSWER_WITHIN,
        orders=notes.orders,
        answers=notes.answers,
        faults=breaker.happened,
        deliveries=[Delivery(**row) for row in pages.deliveries],
        effects=pages.effects,
        tasks=aftermath.tasks(machine),
        dead_letters=aftermath.dead_letters(machine),
        poison=breaker.poison,
        noise=canary.noise,
        samples=scales.samples,
        left=left,
        acts=notes.acts,
        hooks=[Hook(**row) for row in pages.webhooks],
        calls=[Call(**row) for row in pages.callbacks],
        jobs=history.jobs,
        schedules=notes.schedules,
        audit=history.audit,
        audit_lines=history.audit_lines,
    )


@contextlib.contextmanager
def _beside(*works: Callable[[threading.Event], None]) -> Iterator[None]:
    """Threads that work until the block ends."""
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def _customers(plan: Plan, machine: Machine, notes: Notes) -> Iterator[None]:
    """Every client of the API, and its operators. In the end those that insist on something are waited for."""
    url, book = machine.http_url, Book(machine.ledger_url)  # the port stays, whatever is killed
    reader = Reader(Caller(url, notes), plan.seed, notes)
    pause = plan.clients / plan.rate
    ordering = [Client(f"client{number}", url, book, plan.seed, pause, notes) for number in range(plan.clients)]
    hands = [] if plan.idle else operators(url, book, plan.seed, notes)
    with _beside(reader.run, *(each.run for each in hands), *(each.run for each in ordering)):
        yield
