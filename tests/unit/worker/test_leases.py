"""Leases: what is held is renewed; only a lease that was renewed before can be lost."""

import pytest

from dispatch.errors import StoreUnavailable
from dispatch.store.claims import Renewed, Ticket
from dispatch.telemetry import metrics
from dispatch.worker import leases as module
from dispatch.worker.leases import Leases
from support.unit_fakes import Log, task_message

ONE, OTHER = Ticket("one", "f1", "w"), Ticket("other", "f2", "w")


class FakeClaims:
    """Renews everything but the tickets in `lost` and in `unclaimed`."""

    def __init__(self):
        self.renewed, self.lost, self.failure = [], [], None
        self.unclaimed, self.again = [], []
        self.to_stop = {}
        self.meanwhile = lambda: None

    def renew(self, held):
        self.renewed.append(dict(held))
        self.meanwhile()
        if self.failure:
            raise self.failure
        return Renewed([ticket for ticket in self.lost if ticket in held], self.to_stop, self.unclaimed)

    def claim_again(self, message, ticket, max_attempts):
        self.again.append((message, ticket, max_attempts))
        return True


@pytest.fixture
def claims():
    return FakeClaims()


@pytest.fixture
def leases(claims):
    return Leases(claims, lease=30)


@pytest.fixture
def losses(monkeypatch):
    log = Log()
    monkeypatch.setattr(module, "log", log)
    return lambda: [fields["owner"] for level, event, fields in log.lines if event == "lease lost"]


def test_a_lease_is_renewed_at_a_third_of_its_life(leases):
    assert leases._interval == 10


def test_what_is_held_is_renewed_until_it_is_dropped(leases, claims):
    leases.hold(ONE, task_message(), 4)
    leases.hold(OTHER, task_message(), 2)
    leases.step()
    leases.drop(ONE)
    leases.drop(ONE)
    leases.step()

    assert claims.renewed == [
        {ONE: (task_message(), 4), OTHER: (task_message(), 2)},
        {OTHER: (task_message(), 2)},
    ]


def test_a_run_whose_claim_redis_has_lost_claims_again_unless_it_is_over(leases, claims, losses):
    leases.hold(ONE, task_message(), 4)
    leases.hold(OTHER, task_message(), 2)
    claims.unclaimed, claims.meanwhile = [ONE, OTHER], lambda: leases.drop(OTHER)
    leases.step()

    assert claims.again == [(task_message(), ONE, 4)]
    assert losses() == []


def test_the_deliveries_in_hand_are_a_metric(leases, monkeypatch):
    seen = []
    monkeypatch.setattr(metrics.IN_FLIGHT, "set", seen.append)
    leases.hold(ONE, task_message(), 4)
    leases.drop(ONE)

    assert seen == [1, 0]


def test_a_delivery_whose_child_has_not_claimed_yet_has_lost_nothing(leases, claims, losses):
    leases.hold(ONE, task_message(), 4)
    claims.lost = [ONE]
    leases.step()

    assert losses() == []


def test_a_lease_that_was_renewed_before_is_lost_once(leases, claims, losses):
    leases.hold(ONE, task_message(), 4)
    leases.step()
    claims.lost = [ONE]
    leases.step()
    leases.step()

    assert losses() == ["one"]


def test_a_delivery_that_ends_during_the_renewal_has_lost_nothing(leases, claims, losses):
    leases.hold(ONE, task_message(), 4)
    leases.step()
    claims.lost, claims.meanwhile = [ONE], lambda: leases.drop(ONE)
    leases.step()

    assert losses() == []


def test_an_outage_leaves_the_next_renewal_as_it_would_have_been(leases, claims, losses):
    leases.hold(ONE, task_message(), 4)
    leases.step()
    claims.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        leases.step()
    claims.failure, claims.lost = None, [ONE]
    leases.step()

    assert losses() == ["one"]


def test_a_delivery_learns_at_each_renewal_that_its_task_is_to_stop(leases, claims):
    asked = []
    leases.hold(ONE, task_message(), 4, asked.append)
    leases.hold(OTHER, task_message(), 4, asked.append)
    claims.to_stop = {ONE: 3.0}
    leases.step()
    claims.to_stop = {ONE: 13.0}
    leases.step()
    leases.drop(ONE)
    leases.step()

    assert asked == [3.0, 13.0]
