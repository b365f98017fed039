"""An operator's act on dead letters: what came of it, and its entries in the audit log."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from typing import NamedTuple

import click

from dispatch.deadletters.service import RedriveOutcome
from dispatch.protocol import audit
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.store.audit import AuditLog

DISCARDED = "discarded"  #: outcome of a discard

#: Outcomes of a verb that was carried out.
_DONE = frozenset({RedriveOutcome.SENT.value, DISCARDED})

#: Outcomes after which a redrive has left something undone.
_LEFT = frozenset({RedriveOutcome.FAILED.value, RedriveOutcome.UNAUTHENTIC.value})


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
def audited(log: AuditLog, by: str, verb: Verb, wanted: DeadLetterFilter) -> Iterator[Outcomes]:
    """The block's entries in the audit log: one for each dead letter that is named, begin and end for a filter.

    Args:
        log: takes them.
        by: who acts.
        verb: what is done.
        wanted: the dead letters.

    Yields:
        What the block fills.
    """
    outcomes = Outcomes(wanted.ids)
    entry = AuditEntry(by, verb.many, audit.target_of(wanted), audit.OK, audit.BEGIN, client=socket.gethostname())
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
            counts = dict(outcomes.counts)
            record(log, dataclasses.replace(entry, result=error or audit.OK, phase=audit.END, details=counts))
        for each, own in outcomes.of.items():
            result = audit.OK if own.keys() & _DONE else error or next(iter(own), "nothing-found")
            record(log, AuditEntry(by, verb.one, each, result, client=entry.client, details=dict(own)))


def record(log: AuditLog, entry: AuditEntry) -> None:
    """Add an entry, and point it out when Redis does not take it."""
    if not log.add(entry):
        click.echo("Redis did not take the audit entry; the line above is all there is of it", err=True)
