"""Which requests have an entry in the audit log, and what it has."""

import dataclasses

import pytest

from dispatch.config import api_keys
from dispatch.errors import Nacked
from dispatch.gateway.contract import response_models
from dispatch.gateway.http.audit_trail import REFUSAL_EVERY, Refusals
from dispatch.gateway.http.problems import Problem
from dispatch.protocol.audit import LONGEST, AuditEntry
from dispatch.protocol.record import State
from support.gateway_fakes import FakeDeadLetters, World, problem, record

DEAD_LETTER = record(state=State.DEAD_LETTERED, dead_reason="permanent")
URL = f"/v1/dead-letters/{DEAD_LETTER.task_id}"
PEPPER = "pepper"


@pytest.fixture
def world():
    return World(dead_letters=FakeDeadLetters(DEAD_LETTER))


def keyed(*scopes, **parts):
    """A gateway with one API key; its world, its client, the key's headers and entry."""
    text = api_keys.token("shop", api_keys.new_secret())
    entry = api_keys.ApiKey("shop", api_keys.digest(PEPPER, text), frozenset(scopes))
    world = World(options={"api_keys": (str(entry),), "api_key_pepper": PEPPER}, **parts)
    return world, world.client(), {"Authorization": f"Bearer {text}"}, entry


def test_a_verb_has_an_entry_with_who_from_where_to_what_and_what_came_of_it():
    world, client, headers, key = keyed(api_keys.DEADLETTERS_WRITE, dead_letters=FakeDeadLetters(DEAD_LETTER))
    client.post(
        f"{URL}/redrive",
        headers={**headers, "X-Request-Id": "rq-1", "X-Forwarded-For": "192.0.2.9"},
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )

    assert world.audit.entries == [
        AuditEntry(
            principal="shop",
            verb="redriveDeadLetter",
            target=DEAD_LETTER.task_id,
            result="ok",
            key=key.fingerprint,
            client="192.0.2.7",
            request_id="rq-1",
        )
    ]


def test_a_verb_that_fails_has_the_problem_as_its_result(world):
    client = world.client()
    client.delete("/v1/dead-letters/unknown")
    world.dead_letters.failure = Nacked()
    client.post(f"{URL}/redrive")
    world.dead_letters.failure = RuntimeError()
    client.post(f"{URL}/redrive")
    client.post("/v1/dead-letters/redrive", json={"limit": 0})

    assert [(entry.verb, entry.target, entry.result) for entry in world.audit.entries] == [
        ("discardDeadLetter", "unknown", "task-not-found"),
        ("redriveDeadLetter", DEAD_LETTER.task_id, "queue-depth-exceeded"),
        ("redriveDeadLetter", DEAD_LETTER.task_id, "internal-error"),
        ("redriveDeadLetters", "", "validation-error"),
    ]


def test_a_bulk_redrive_begins_and_a_dry_run_does_not(world):
    client = world.client()
    chosen = {"filter": {"type": "greet", "errorType": "e"}, "limit": 5}
    client.post("/v1/dead-letters/redrive", json={**chosen, "dryRun": True})
    client.post("/v1/dead-letters/redrive", json=chosen)
    world.dead_letters.matching = 0
    client.post("/v1/dead-letters/redrive", json={})

    assert [(entry.target, entry.phase, entry.details["matched"]) for entry in world.audit.entries] == [
        ("type=greet errorType=e", "", 5),
        ("type=greet errorType=e", "begin", 5),
        ("all", "", 0),
    ]
    assert [entry.details["dryRun"] for entry in world.audit.entries] == [True, False, False]


def test_what_reads_and_what_submits_has_none(world):
    client = world.client()
    for path in ("/v1/tasks", "/v1/dead-letters", URL, "/v1/queues", "/v1/audit", "/livez", "/nope"):
        client.get(path)
    client.post("/v1/tasks", json={"type": "greet", "payload": {"message": "hi"}})
    client.post(URL)

    assert world.audit.entries == []


def test_a_request_without_its_scope_has_one_whatever_it_asked_for():
    world, client, headers, key = keyed(api_keys.TASKS_READ, dead_letters=FakeDeadLetters(DEAD_LETTER))
    for path in ("/v1/audit", URL, "/v1/audit", "/v1/audit"):
        problem(client.get(path, headers=headers), 403, "insufficient-scope")
    problem(client.delete(URL, headers=headers), 403, "insufficient-scope")

    assert [(entry.verb, entry.target, entry.result) for entry in world.audit.entries] == [
        ("listAudit", "", "insufficient-scope"),
        ("getDeadLetter", DEAD_LETTER.task_id, "insufficient-scope"),
        ("discardDeadLetter", DEAD_LETTER.task_id, "insufficient-scope"),
    ]
    assert {(entry.principal, entry.key) for entry in world.audit.entries} == {("shop", key.fingerprint)}
    assert DEAD_LETTER.task_id in world.dead_letters.held


def test_a_quota_that_is_used_up_floods_no_log(world):
    def spend(_):
        raise Problem("quota-exceeded", retry_after=1)

    client = dataclasses.replace(world, spend=spend).client()
    for _ in range(5):
        client.delete(URL)
        client.get("/v1/dead-letters")

    assert [(entry.verb, entry.result) for entry in world.audit.entries] == [("discardDeadLetter", "quota-exceeded")]


def test_what_changes_nothing_floods_no_log(world):
    client = world.client()
    for number in range(5):
        client.delete(f"/v1/dead-letters/{number}")
        client.post(f"/v1/jobs/{number}/stop")
        client.post("/v1/dead-letters/redrive", json={"limit": -number})
        client.post("/v1/dead-letters/redrive", json={"dryRun": True})
        client.post("/v1/dead-letters/redrive", json={})
    world.dead_letters.matching = 0
    for _ in range(5):
        client.post("/v1/dead-letters/redrive", json={})

    assert [(entry.verb, entry.result, entry.phase) for entry in world.audit.entries] == [
        ("discardDeadLetter", "task-not-found", ""),
        ("stopJob", "job-not-found", ""),
        ("redriveDeadLetters", "validation-error", ""),
        ("redriveDeadLetters", "ok", ""),
        ("redriveDeadLetters", "ok", "begin"),
        ("redriveDeadLetters", "ok", "begin"),
        ("redriveDeadLetters", "too-many-jobs", ""),
        ("redriveDeadLetters", "ok", ""),
    ]


def test_a_request_without_an_api_key_has_none():
    world, client, _, _ = keyed(api_keys.TASKS_READ)
    client.delete(URL)

    assert world.audit.entries == []


def test_refusals_of_one_kind_are_thinned_out_and_counted():
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    seen = [refusals.count("shop", "listAudit", "insufficient-scope") for _ in range(4)]
    other = refusals.count("bank", "listAudit", "insufficient-scope")
    now[0] += REFUSAL_EVERY
    seen.append(refusals.count("shop", "listAudit", "insufficient-scope"))
    now[0] += REFUSAL_EVERY
    seen.append(refusals.count("shop", "listAudit", "insufficient-scope"))

    assert seen == [1, None, None, None, 4, 1]
    assert other == 1


def test_the_log_is_listed_for_those_who_may(world):
    client = world.client()
    client.delete(URL)
    client.delete(URL)
    client.post("/v1/dead-letters/redrive", json={"dryRun": True})
    page = response_models.AuditListModel.model_validate(
        client.get("/v1/audit?verb=discardDeadLetter&principal=local").json
    )

    assert [(entry.target, entry.result) for entry in page.items] == [
        (DEAD_LETTER.task_id, "ok"),
        (DEAD_LETTER.task_id, "task-not-found"),
    ]
    assert (page.items[0].key_id, page.items[0].client, page.items[0].phase) == (None, "127.0.0.1", None)
    assert client.get("/v1/audit?principal=bank").json == {"items": [], "next": None}
    for query in ("cursor=bad", "limit=0", "limit=201", "who=me", f"verb={'x' * 129}"):
        problem(client.get(f"/v1/audit?{query}"), 422, "validation-error")


def test_an_entry_is_bounded_and_read_as_far_as_it_goes():
    long = AuditEntry("p" * 999, "v", "t" * 9_999, "ok", details={"sent": 1})
    words = long.fields()

    assert max(map(len, words)) == LONGEST
    assert AuditEntry.parse(dict(zip(words[::2], words[1::2], strict=True))).details == {"sent": 1}
    assert AuditEntry.parse({"verb": "v", "new": "field", "details": "{"}) == AuditEntry("", "v", "", "")
    assert AuditEntry.parse({"details": "[]"}).details == {}
