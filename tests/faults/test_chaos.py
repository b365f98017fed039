"""Every promise and every verb at once: a system under load that a seeded schedule breaks; ``make chaos`` is the long version."""

import pytest

from support.chaos.run import Plan, run


@pytest.mark.timeout(420)
def test_a_system_that_is_broken_for_a_minute_keeps_its_promises(tmp_path):
    verdict = run(Plan(seed=7, duration=60), tmp_path, print)

    assert not verdict.violations, verdict.text
    assert len(verdict.facts.faults) > 10
    assert {act.verb for act in verdict.facts.acts if act.done} > {
        "cancelTask",
        "pauseTasks",
        "resumeTasks",
        "signalTask",
        "startJob",
        "putSchedule",
    }
