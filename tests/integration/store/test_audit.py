"""The audit log in a real Redis."""

import pytest
import structlog.testing

from dispatch.protocol.audit import AuditEntry
from dispatch.store.audit import SCAN_LIMIT, AuditLog
from dispatch.store.scripts import RedisHandle
from dispatch.telemetry import metrics
from support.stores import Stores


@pytest.fixture
def stores(settings):
    made = Stores(settings)
    yield made
    made.close()


def entry(target: str, principal: str = "shop", verb: str = "redriveDeadLetter", **more) -> AuditEntry:
    return AuditEntry(principal, verb, target, "ok", **more)


def everything(log: AuditLog, limit: int = 200, **wanted) -> list[str]:
    """The targets of all pages."""
    found, cursor = [], None
    while True:
        page = log.page(limit=limit, cursor=cursor, **wanted)
        found += [one.entry.target for one in page.items]
        cursor = page.next
        if cursor is None:
            return found


def test_entries_are_paged_newest_first_and_filtered(stores):
    whole = entry("0", phase="end", key="0123456789ab", client="192.0.2.7", request_id="rq", details={"sent": 3})
    stores.audit.add(whole)
    for number in range(1, 7):
        stores.audit.add(entry(str(number), "bank" if number % 2 else "shop", "discardDeadLetter"))
    first = stores.audit.page(limit=3)

    assert [one.entry.target for one in first.items] == ["6", "5", "4"]
    assert everything(stores.audit, 3) == list("6543210")
    assert everything(stores.audit, 2, principal="bank") == ["5", "3", "1"]
    assert everything(stores.audit, 2, principal="shop", verb="discardDeadLetter") == ["6", "4", "2"]
    assert everything(stores.audit, verb="nothing") == []
    assert stores.audit.page(verb="redriveDeadLetter").items[0].entry == whole
    for cursor in ("", "x", "0", "1-", "+", "(1-1", "1-1 2"):
        with pytest.raises(ValueError, match="cursor"):
            stores.audit.page(cursor=cursor)


def test_a_rare_filter_ends_a_page_early_and_hands_on_a_cursor(stores):
    stores.audit.add(entry("rare", "bank"))
    many = [stores.redis.script("audit", [stores.redis.keys.audit], 50_000, 10**9, *entry("x").fields())]
    stores.redis.run(*(many * (SCAN_LIMIT + 50)))
    page = stores.audit.page(principal="bank")

    assert (page.items, page.next is not None) == ([], True)
    assert everything(stores.audit, principal="bank") == ["rare"]


def test_the_log_is_bounded_in_length_and_in_age(stores, settings):
    key = stores.redis.keys.audit
    short = AuditLog(stores.redis, settings.model_copy(update={"audit_entries": 1_000, "audit_ttl": 3_600}))
    add = stores.redis.script("audit", [key], 1_000, 3_600_000, *entry("x").fields())
    stores.redis.run(*([add] * 1_500))
    length, ttl = stores.redis.run(("XLEN", key), ("PTTL", key))

    assert 1_000 <= length <= 1_200
    assert 3_500_000 < ttl <= 3_600_000

    stores.redis.run(("DEL", key), *(("XADD", key, f"{1_000 + number}-0", "verb", "old") for number in range(300)))
    short.add(entry("new"))
    assert stores.redis.run(("XLEN", key))[0] <= 101


def test_an_entry_that_redis_does_not_take_is_in_the_log_of_the_process(stores):
    stores.redis.run(("SET", stores.redis.keys.audit, "not a stream"))
    before = metrics.registry().get_sample_value("robot_audit_entries_lost_total") or 0.0
    with structlog.testing.capture_logs() as lines:
        taken = stores.audit.add(entry("a task", details={"sent": 3}))

    assert not taken
    lines = [line for line in lines if line["event"].startswith("audit")]  # other threads of the process may log, too
    assert [line["event"] for line in lines] == ["audit", "audit entry not stored"]
    assert {name: lines[0][name] for name in ("principal", "verb", "target", "result", "details")} == {
        "principal": "shop",
        "verb": "redriveDeadLetter",
        "target": "a task",
        "result": "ok",
        "details": {"sent": 3},
    }
    assert metrics.registry().get_sample_value("robot_audit_entries_lost_total") == before + 1


def test_a_redis_that_is_not_there_costs_no_verb(settings):
    nowhere = settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://127.0.0.1:1")})
    redis = RedisHandle(nowhere, timeout=0.5)

    assert AuditLog(redis, nowhere).add(entry("a task")) is False
    redis.close()
