"""The verdict: facts in, violations out. Pure; the rules are in `support.chaos.rules`."""

from __future__ import annotations

import dataclasses

from support.chaos.facts import Facts
from support.chaos.rules import RULES
from support.chaos.view import View


@dataclasses.dataclass(frozen=True)
class Violation:
    """A broken promise."""

    rule: str
    subject: str  #: a task id, a label, or a queue
    text: str


def check(facts: Facts) -> list[Violation]:
    """Every broken promise of a run.

    Args:
        facts: what it has seen.
    """
    view = View(facts)
    return [Violation(name, subject, text) for name, rule in RULES.items() for subject, text in rule(view)]
