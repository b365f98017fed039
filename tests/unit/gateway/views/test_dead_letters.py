import dataclasses
import json

import pytest

from dispatch.config import api_keys
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.deadletters.service import NoSuchDeadLetter, NotDead, TooLarge
from dispatch.errors import InDoubt, Nacked, NotSent, Unroutable
from dispatch.gateway.contract import response_models
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.mending import AS_IT_WAS, Mend
from dispatch.protocol.message import Message
from dispatch.protocol.record import Brief, ErrorInfo, State
from dispatch.store.index import BriefEntry, ScannedBatch
from dispatch.tasktypes.payload import Payload, Secret
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.gateway_fakes import FakeDeadLetters, World, problem, record

DEAD_LETTER = record(
    principal="bank",
    state=State.DEAD_LETTERED,
    dead_reason="permanent",
    error=ErrorInfo("echo-refused", "asked to", retryable=False),
    message=Message(b'[[{"message": "hi"}], {}, {}]', {}),
)


@pytest.fixture
def world():
    return World(dead_letters=FakeDeadLetters(DEAD_LETTER))


@pytest.fixture
def client(world):
    return world.client()


URL = f"/v1/dead-letters/{DEAD_LETTER.task_id}"


def test_operators_see_everybodys_dead_letters(client, world):
    answer = client.get("/v1/dead-letters?type=greet&errorType=echo-refused&limit=3")

    assert [DEAD_LETTER.task_id] == [
        one.task_id for one in response_models.DeadLetterListModel.model_validate(answer.json).items
    ]
    assert (answer.json["items"][0]["principal"], answer.json["items"][0]["deadReason"]) == ("bank", "permanent")
    assert world.dead_letters.asked == [(DeadLetterFilter("greet", "echo-refused"), 3, None)]


def test_dead_letters_of_a_group_are_listed_and_redriven_by_its_filter(client, world):
    client.get(f"/v1/dead-letters?fingerprint={'ab' * 8}")
    client.post("/v1/dead-letters/redrive", json={"filter": {"type": "greet", "fingerprint": "ab" * 8}})

    assert world.dead_letters.asked[0] == (DeadLetterFilter(fingerprint="ab" * 8), 50, None)
    assert world.dead_letters.jobs[0].filter == DeadLetterFilter("greet", fingerprint="ab" * 8)
    problem(client.get("/v1/dead-letters?fingerprint=xyz"), 422, "validation-error")


def test_groups_come_with_their_filter_and_what_was_left_out(client, world):
    brief = Brief("greet", State.DEAD_LETTERED, "echo-refused", "ab" * 8)
    found = [BriefEntry(DEAD_LETTER.task_id, 1_795_487_760_000.0, brief)] * 2
    world.dead_letters.batches = [ScannedBatch(found, 3, "more")]
    answer = client.get("/v1/dead-letters/groups?type=greet").json
    response_models.DeadLetterGroupsModel.model_validate(answer)
    (group,) = answer["items"]

    assert group == {
        "type": "greet", "errorType": "echo-refused", "fingerprint": "ab" * 8, "count": 2,
        "firstAt": "2026-11-24T02:36:00.000Z", "lastAt": "2026-11-24T02:36:00.000Z",
        "exampleTaskId": DEAD_LETTER.task_id, "exampleError": "asked to",
        "filter": {"type": "greet", "errorType": "echo-refused", "fingerprint": "ab" * 8},
    }  # fmt: skip
    assert (answer["grouped"], answer["notShown"], answer["complete"], answer["next"]) == (2, 0, False, "more")
    assert world.dead_letters.asked == [(DeadLetterFilter("greet"), None)]


@pytest.mark.parametrize("query", ["limit=0", "fingerprint=x", "cursor=bad"])
def test_a_wrong_query_for_groups_is_refused(client, query):
    problem(client.get(f"/v1/dead-letters/groups?{query}"), 422, "validation-error")


@pytest.mark.parametrize("query", ["limit=0", "error_type=x", "status=FAIL", "cursor=bad"])
def test_a_wrong_query_is_refused(client, query):
    problem(client.get(f"/v1/dead-letters?{query}"), 422, "validation-error")


def test_a_dead_letter_is_shown_with_its_payload(client):
    answer = client.get(URL)

    assert response_models.DeadLetterDetailModel.model_validate(answer.json).payload == {"message": "hi"}


class Login(Payload):
    """With a secret."""

    user: str
    password: Secret


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"user": "hunter2's friend", "password": "hunter2"}, {"user": "[secret]'s friend", "password": "[secret]"}),
        ({"user": "1 of 2", "password": "1"}, {"user": "1 of 2", "password": "[secret]"}),
        ({"user": 3, "password": {"odd": ["x", 5]}}, {"user": 3, "password": "[secret]"}),
        ({"user": "ada", "password": None}, {"user": "ada", "password": None}),
        ("no object", "no object"),
    ],
)
def test_a_dead_letter_is_shown_without_its_secrets(sent, shown):
    login = TaskType("login", Login, lambda *_: {}, None, 300.0, "Log in.")
    dead_letter = dataclasses.replace(
        DEAD_LETTER, type="login", message=Message(json.dumps([[sent], {}, {}]).encode(), {})
    )
    answer = World(dead_letters=FakeDeadLetters(dead_letter), types={"login": login}).client().get(URL)

    assert answer.json["payload"] == shown


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b"[]", b"[[]]", b"\xff", b"7"])
def test_a_poisoned_dead_letter_is_shown_without_its_payload(body):
    poisoned = record(state=State.DEAD_LETTERED, message=Message(body, {}))
    client = World(dead_letters=FakeDeadLetters(poisoned)).client()

    assert client.get(f"/v1/dead-letters/{poisoned.task_id}").json["payload"] is None


@pytest.mark.parametrize(
    "path", ["/v1/dead-letters/unknown", "/v1/dead-letters/redrive", f"/v1/dead-letters/{'x' * 200}"]
)
def test_an_unknown_dead_letter_is_404(client, path):
    problem(client.get(path), 404, "task-not-found")
    problem(client.delete(path), 404, "task-not-found")


@pytest.mark.parametrize("options", [{}, {"json": {}}, {"content_type": "application/json"}])
def test_a_redrive_is_202_in_the_next_cycle(client, world, options):
    answer = client.post(f"{URL}/redrive", **options)

    assert (202, 1, f"/v1/tasks/{DEAD_LETTER.task_id}") == (
        answer.status_code,
        answer.json["cycle"],
        answer.headers["Location"],
    )
    assert [(DEAD_LETTER.task_id, "local", AS_IT_WAS)] == world.dead_letters.asked


def test_a_redrive_has_the_payload_as_a_submission_would_and_the_audit_log_has_that_it_was_edited(world, client):
    answer = client.post(f"{URL}/redrive", json={"payload": {"message": "mended"}})
    fresh = client.post(f"{URL}/redrive", json={"fresh": True})
    edited, again = [entry for entry in world.audit.entries if entry.verb == "redriveDeadLetter"]

    assert (answer.status_code, fresh.status_code) == (202, 202)
    assert [mend for *_, mend in world.dead_letters.asked] == [Mend({"message": "mended"}), Mend(fresh=True)]
    assert (edited.details, again.details) == ({"payloadEdited": True}, {"fresh": True})
    assert "mended" not in str(edited)


def test_a_new_payload_makes_its_own_concurrency_key():
    keyed = dataclasses.replace(
        World().types["greet"], name=DEAD_LETTER.type, concurrency_key=lambda order: order.message
    )
    world = World(dead_letters=FakeDeadLetters(DEAD_LETTER), types={keyed.name: keyed})
    answer = world.client().post(f"{URL}/redrive", json={"payload": {"message": "robot-2"}})

    assert answer.status_code == 202
    assert [mend.key for *_, mend in world.dead_letters.asked] == ["robot-2"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"payload": {}}, "/payload/message"),
        ({"payload": {"message": 7}}, "/payload/message"),
        ({"payload": {"message": "x", "more": 1}}, "/payload/more"),
        ({"payload": {"message": "the [secret] of it"}}, "/payload/message"),
        ({"payload": None}, "/payload"),
        ({"payload": "x"}, "/payload"),
        ({"fresh": "yes"}, "/fresh"),
        ({"cycle": 3}, "/cycle"),
    ],
)
def test_a_payload_that_is_not_valid_is_refused_with_its_place(client, world, body, pointer):
    found = problem(client.post(f"{URL}/redrive", json=body), 422, "validation-error")

    problem(client.post(f"{URL}/redrive", data="x", content_type="text/plain"), 415, "unsupported-media-type")
    assert found["errors"][0]["pointer"] == pointer
    assert world.dead_letters.asked == []


def test_a_payload_for_a_type_that_is_not_known_is_refused():
    unknown = record(state=State.DEAD_LETTERED, type="gone", message=Message(b"", {}))
    client = World(dead_letters=FakeDeadLetters(unknown)).client()

    problem(client.post(f"/v1/dead-letters/{unknown.task_id}/redrive", json={"payload": {}}), 422, "unknown-task-type")


@pytest.mark.parametrize(
    ("scopes", "status"), [((), 403), (("tasks:write:robot.*",), 403), (("tasks:write:greet",), 202)]
)
def test_another_payload_needs_the_right_to_submit_it(scopes, status):
    key = api_keys.token("ops", api_keys.new_secret())
    entry = api_keys.ApiKey("ops", api_keys.digest("pepper", key), frozenset({api_keys.DEADLETTERS_WRITE, *scopes}))
    options = {"api_keys": (str(entry),), "api_key_pepper": "pepper"}
    client = World(dead_letters=FakeDeadLetters(DEAD_LETTER), options=options).client()
    headers = {"Authorization": f"Bearer {key}"}

    assert client.post(f"{URL}/redrive", headers=headers, json={"payload": {"message": "x"}}).status_code == status
    assert client.post(f"{URL}/redrive", headers=headers, json={"fresh": True}).status_code == 202


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [
        (NoSuchDeadLetter(), 404, "task-not-found"),
        (NotDead(record(state=State.QUEUED)), 409, "task-not-dead"),
        (TooLarge(), 409, "letter-too-large"),
        (NotSent(), 503, "broker-unavailable"),
        (Unroutable(), 503, "publish-unroutable"),
        (Nacked(), 429, "queue-depth-exceeded"),
        (InDoubt(), 503, "publish-unconfirmed"),
    ],
)
def test_what_can_go_wrong_with_a_redrive(client, world, failure, status, slug):
    world.dead_letters.failure = failure

    body = problem(client.post(f"{URL}/redrive"), status, slug)

    assert slug != "task-not-dead" or body["state"] == "QUEUED"
    assert slug != "publish-unconfirmed" or (
        body["taskId"] == DEAD_LETTER.task_id and "Idempotency" not in body["detail"]
    )


def test_a_discarded_dead_letter_is_gone(client, world):
    answer = client.delete(URL)

    assert (answer.status_code, answer.data) == (204, b"")
    assert [(DEAD_LETTER.task_id, "local")] == world.dead_letters.asked
    problem(client.delete(URL), 404, "task-not-found")


def test_a_bulk_redrive_is_handed_to_the_workers(client, world):
    answer = client.post(
        "/v1/dead-letters/redrive", json={"filter": {"errorType": "x"}, "limit": 5, "ratePerSecond": 2}
    )

    (job,) = world.dead_letters.jobs

    assert answer.status_code == 202
    assert answer.json == {"jobId": job.id, "matched": 5, "limit": 5, "ratePerSecond": 2.0, "dryRun": False}
    assert world.dead_letters.asked == [
        (DeadLetterFilter(error_type="x"), 5),
        BulkRedrive(DeadLetterFilter(error_type="x"), 5, 2.0, "local"),
    ]


def test_a_dry_run_only_counts(client, world):
    answer = client.post("/v1/dead-letters/redrive", json={"dryRun": True})

    assert (answer.status_code, answer.json["matched"], answer.json["dryRun"]) == (200, 7, True)
    assert answer.json["jobId"] is None
    assert world.dead_letters.asked == [(DeadLetterFilter(), 100)]


@each(
    ("body", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": "5"}, "/limit"),
        ({"ratePerSecond": 0}, "/ratePerSecond"),
        ({"dryRun": 1}, "/dryRun"),
        ({"filter": {"state": "x"}}, "/filter/state"),
        ({"filter": None}, "/filter"),
        ({"everything": True}, "/everything"),
    ],
)
def test_a_wrong_bulk_redrive_is_refused(client, world, body, pointer):
    errors = problem(client.post("/v1/dead-letters/redrive", json=body), 422, "validation-error")["errors"]

    assert [pointer] == [error["pointer"] for error in errors]
    assert world.dead_letters.asked == []


def test_a_bulk_redrive_without_a_match_asks_the_workers_for_nothing(client, world):
    world.dead_letters.matching = 0
    answer = client.post("/v1/dead-letters/redrive", json={})

    assert (answer.status_code, answer.json["matched"]) == (202, 0)
    assert world.dead_letters.asked == [(DeadLetterFilter(), 100)]
