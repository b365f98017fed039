"""An operator's act on dead letters: what came of it, and its entries in the audit log."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click

from dispatch.cli.output import NOT_DONE, echo_line
from dispatch.cli.tables import plain
from dispatch.deadletters.service import RedriveOutcome
from dispatch.protocol import audit
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.message import LAST_ERROR_TYPE, Message
from dispatch.store.audit import AuditLog

DISCARDED = "discarded"  #: outcome of a discard

#: Outcomes of a verb that was carried out.
_DONE = frozenset({RedriveOutcome.SENT.value, DISCARDED})

#: Outcomes after which a redrive has left something undone.
_LEFT = frozenset(
    {outcome.value for outcome in (RedriveOutcome.FAILED, RedriveOutcome.UNAUTHENTIC, RedriveOutcome.OVERTAKEN)}
)


#: In place of an outcome.
_KEPT = {
    RedriveOutcome.STALE: "stale, removed",
    RedriveOutcome.LIVE: "kept: a worker runs it",
    RedriveOutcome.OVERTAKEN: "not as given: a redrive that was cut off has sent it",
    RedriveOutcome.TOO_LARGE: "kept: too large, discard it",
    RedriveOutcome.UNAUTHENTIC: "kept: unauthentic, no gateway or worker of ours wrote it; discard it",
    RedriveOutcome.FAILED: "kept: it can't be published",
}


class Verb(NamedTuple):
    """A verb's names in the audit log."""

    one: str  #: on one dead letter
    many: str  #: on what a filter matches


REDRIVE = Verb(audit.REDRIVE, audit.BULK_REDRIVE)
DISCARD = Verb(audit.DISCARD, audit.BULK_DISCARD)


class Outcomes:
    """What came of each dead letter.

    Args:
        ids: those that are named; None: what a filter matches.
    """

    def __init__(self, ids: tuple[str, ...] | None) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.of = {each: collections.Counter[str]() for each in ids or ()}

    def add(self, dead_letter_id: str, outcome: str) -> None:
        """One more."""
        self.counts[outcome] += 1
        if dead_letter_id in self.of:
            self.of[dead_letter_id][outcome] += 1

    @property
    def undone(self) -> bool:
        """Whether the act left something that was meant: each that is named must be done."""
        return bool(self.counts.keys() & _LEFT) or not all(counts.keys() & _DONE for counts in self.of.values())


@contextlib.contextmanager
def audited(
    log: AuditLog, by: str, verb: Verb, wanted: DeadLetterFilter, note: Mapping[str, Any] | None = None
) -> Iterator[Outcomes]:
    """The block's entries in the audit log: one for each dead letter that is named, begin and end for a filter.

    Args:
        log: takes them.
        by: who acts.
        verb: what is done.
        wanted: the dead letters.
        note: more about the act.

    Yields:
        What the block fills.
    """
    outcomes, more = Outcomes(wanted.ids), dict(note or {})
    entry = AuditEntry(
        by, verb.many, audit.target_of(wanted), audit.OK, audit.BEGIN, client=socket.gethostname(), details=more
    )
    if wanted.ids is None:
        record(log, entry)
    error = "interrupted"
    try:
        yield outcomes
        error = ""
    except Exception as exc:
        error = type(exc).__name__
        raise
    finally:
        if wanted.ids is None:
            counts = {**more, **outcomes.counts}
            record(log, dataclasses.replace(entry, result=error or audit.OK, phase=audit.END, details=counts))
        for each, own in outcomes.of.items():
            result = audit.OK if own.keys() & _DONE else error or next(iter(own), "nothing-found")
            record(log, AuditEntry(by, verb.one, each, result, client=entry.client, details={**more, **own}))


def record(log: AuditLog, entry: AuditEntry) -> None:
    """Add an entry, and point it out when Redis does not take it."""
    if not log.add(entry):
        click.echo("Redis did not take the audit entry; the line above is all there is of it", err=True)


def conclude(text: str, outcomes: Outcomes, as_json: bool) -> None:
    """The last lines of a command, and its exit code."""
    missing = [each for each, counts in outcomes.of.items() if not counts]
    for each in missing:
        if as_json:
            echo_line({"taskId": each, "outcome": "nothing-found"})
        else:
            click.echo(f"{each}  no such dead letter")
    if not as_json:
        click.echo(text)
    if outcomes.undone:
        raise SystemExit(NOT_DONE)


def echo_redriven(dead_letter: Message, outcome: RedriveOutcome, as_json: bool) -> None:
    """The line of one that was to be redriven."""
    cycle = dead_letter.cycle + 1 if outcome is RedriveOutcome.SENT else dead_letter.cycle
    if as_json:
        named = {"taskId": dead_letter.dead_letter_id, "type": dead_letter.type or None}
        echo_line({**named, "outcome": outcome.value, "cycle": cycle})
    else:
        click.echo(f"{dead_letter.dead_letter_id}  {_KEPT.get(outcome, f'sent, cycle {cycle}')}")


def echo_discarded(dead_letter: Message, as_json: bool) -> None:
    """The line of one that was discarded."""
    error, type_ = dead_letter.text(LAST_ERROR_TYPE), dead_letter.type or None
    if as_json:
        echo_line({"taskId": dead_letter.dead_letter_id, "type": type_, "outcome": DISCARDED, "errorType": error})
    else:
        click.echo(f"{dead_letter.dead_letter_id}  {plain(type_ or '-')}  {plain(error or '-')}")
