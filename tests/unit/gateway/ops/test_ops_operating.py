"""The pages by which many tasks are acted on: what they do, for whom, and what hostile users and servers that are down get."""

import dataclasses
import html
import json
import re

from dispatch.config import api_keys
from dispatch.config.api_keys import SCOPES
from dispatch.deadletters.bulk import BulkRedrive
from dispatch.errors import NotSent, StoreUnavailable
from dispatch.gateway.ops.navigation import PLACES
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.dead_letters import DeadLetterFilter
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.jobs import BulkJob, JobState, JobVerb
from dispatch.protocol.message import Message
from dispatch.protocol.pauses import Pause
from dispatch.protocol.record import Brief, ErrorInfo, State
from dispatch.protocol.task_filter import TaskFilter
from dispatch.store.index import BriefEntry, ScannedBatch
from dispatch.tasktypes.payload import Payload, Secret
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.console import PEPPER, key
from support.gateway_fakes import GREET, FakeDeadLetters, FakeTasks, World, record

ADMIN, ADMIN_ENTRY = key("admin", *SCOPES)
VIEWER, VIEWER_ENTRY = key("viewer", api_keys.TASKS_READ_ALL, api_keys.DEADLETTERS_READ, api_keys.QUEUES_READ)
CLIENT, CLIENT_ENTRY = key("shop", api_keys.TASKS_READ, api_keys.TASKS_WRITE, api_keys.SCHEDULES_WRITE)
LETTERS, LETTERS_ENTRY = key("letters", api_keys.DEADLETTERS_READ, api_keys.DEADLETTERS_WRITE)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}"


class Call(Payload):
    url: str
    times: int = 1
    token: Secret | None = None


CALL = TaskType("call", Call, GREET.handler, None, 60.0, "Call somebody.")
PAYLOAD = {"url": "https://robots.example/a", "token": "hunter22-secret"}


def letter(payload=None, type_="call", **changes):
    task_id = new_task_id()
    body = json.dumps([[payload or PAYLOAD], {}, {}]).encode()
    headers = {
        "task": type_,
        "id": task_id,
        "x-authorization": "Bearer abcdefgh",
        "x-signature": "k:sigsig",
        "x-checkpoint": "cpcp",
    }
    return record(
        task_id=task_id, type=type_, state=State.DEAD_LETTERED, principal="robotics", dead_reason="permanent",
        error=ErrorInfo("refused", "no such robot", retryable=False), error_fingerprint="9f86d081884c7d65",
        message=Message(body, headers, "application/json", "utf-8"), **changes,
    )  # fmt: skip


def world(*letters, entries=(ADMIN_ENTRY, VIEWER_ENTRY, CLIENT_ENTRY, LETTERS_ENTRY), **more):
    types = {"greet": GREET, "call": CALL}
    options = {"api_keys": entries, "api_key_pepper": PEPPER}
    return World(
        tasks=FakeTasks(*letters), dead_letters=FakeDeadLetters(*letters), types=types, options=options, **more
    )


def token(page):
    return re.search(r'name="token" value="([0-9a-f]{64})"', page.text)[1]


def signed_in(made, text=ADMIN):
    client = made.client()
    form = {"key": text, "token": token(client.get("/ops/sign-in"))}
    assert client.post("/ops/sign-in", data=form).status_code == 303
    return client


def post(client, path, **form):
    return client.post(path, data={"token": token(client.get("/ops")), **form})


# --- who may what ----------------------------------------------------------------------------------
ONE = letter()
ACTS = {
    f"/ops/dead-letters/{ONE.task_id}/redrive": "redriveDeadLetter",
    f"/ops/dead-letters/{ONE.task_id}/discard": "discardDeadLetter",
    f"/ops/dead-letters/{ONE.task_id}/mend": "redriveDeadLetter",
    f"/ops/dead-letters/selected/redrive?id={ONE.task_id}": "redriveDeadLetters",
    f"/ops/dead-letters/selected/discard?id={ONE.task_id}": "discardDeadLetters",
    "/ops/jobs/start?verb=cancel&type=call": "startJob",
    "/ops/jobs/j/stop": "stopJob",
    "/ops/pauses/new?what=all": "pauseTasks",
    "/ops/pauses/all/end": "resumeTasks",
    "/ops/new-schedule/greet": "putSchedule",
    "/ops/schedules/nightly/edit": "putSchedule",
    "/ops/schedules/nightly/pause": "pauseSchedule",
    "/ops/schedules/nightly/resume": "resumeSchedule",
    "/ops/schedules/nightly/run-now": "runScheduleNow",
    "/ops/schedules/nightly/delete": "deleteSchedule",
}


@each("path", list(ACTS))
def test_a_viewer_who_posts_gets_403_and_an_entry(path):
    made = world(ONE)
    answer = post(signed_in(made, VIEWER), path)

    assert answer.status_code == 403
    entry = made.audit.entries[-1]
    assert (entry.verb, entry.principal, entry.result) == (ACTS[path], "viewer", "insufficient-scope")
    assert (made.dead_letters.asked, made.jobs.held, made.pauses.pauses, made.schedules.entries) == ([], {}, {}, {})


@each("path", list(ACTS))
@each("form", [{}, {"token": "0" * 64}])
def test_no_act_is_carried_out_without_the_sessions_token(path, form):
    made = world(ONE)
    answer = signed_in(made).post(path, data=form)

    assert answer.status_code == 403
    assert (made.dead_letters.asked, made.jobs.held, made.pauses.pauses, made.schedules.entries) == ([], {}, {}, {})


def test_pages_are_listed_by_scope():
    def listed(text):
        nav = signed_in(world(), text).get("/ops").text.partition("<main")[0]
        return [place.path for place in PLACES if f'href="/ops{place.path}"' in nav]

    assert "/audit" in listed(ADMIN)
    assert not {"/audit", "/pauses"} & set(listed(VIEWER))
    assert not {"/dead-letters", "/jobs", "/pauses", "/audit"} & set(listed(CLIENT))
    assert "/schedules" in listed(CLIENT)


@each("path", ["/ops/dead-letters", "/ops/dead-letters/list", "/ops/jobs", "/ops/pauses", "/ops/audit"])
def test_a_client_has_no_operators_page(path):
    assert signed_in(world(), CLIENT).get(path).status_code == 403


# --- dead letters ----------------------------------------------------------------------------------
def grouped(made, **brief):
    plain = Brief(
        type="call", state=State.DEAD_LETTERED, error_type="refused", error_fingerprint="9f86d081884c7d65"
    )  # fmt: skip
    entry = BriefEntry(next(iter(made.dead_letters.held)), 1_795_487_760_000.0, dataclasses.replace(plain, **brief))
    made.dead_letters.batches = [ScannedBatch([entry], 1, None)]
    return made


def test_groups_have_their_counts_and_lead_to_a_job_of_exactly_them():
    page = signed_in(grouped(world(ONE))).get("/ops/dead-letters").text

    wanted = "type=call&errorType=refused&fingerprint=9f86d081884c7d65"
    assert f"/ops/jobs/start?verb=redrive&{wanted}" in html.unescape(page)
    assert f"/ops/dead-letters/list?{wanted}" in html.unescape(page)
    assert "no such robot" in page


def test_a_viewer_sees_groups_without_acts():
    page = signed_in(grouped(world(ONE)), VIEWER).get("/ops/dead-letters").text

    assert "no such robot" in page
    assert "/ops/jobs/start" not in page


def test_a_group_without_a_type_has_no_filter_and_so_no_act():
    page = signed_in(grouped(world(ONE), type="")).get("/ops/dead-letters").text

    assert "verb=discard" not in page
    assert f"/ops/dead-letters/{ONE.task_id}" in page


def test_one_has_its_error_headers_and_payload_without_secrets():
    page = signed_in(world(ONE)).get(f"/ops/dead-letters/{ONE.task_id}").text

    assert "no such robot" in page
    assert "https://robots.example/a" in page
    assert "x-authorization" in page
    assert not any(secret in page for secret in ("hunter22", "abcdefgh", "sigsig", "cpcp"))


@each("path", ["nope", new_task_id()])
def test_a_dead_letter_that_is_not_there_is_not_found(path):
    assert signed_in(world(ONE)).get(f"/ops/dead-letters/{path}").status_code == 404


def test_one_is_redriven_and_discarded():
    made = world(ONE)
    client = signed_in(made, LETTERS)
    path = f"/ops/dead-letters/{ONE.task_id}"
    assert "This concerns <strong>1</strong> task" in client.get(f"{path}/redrive").text
    sent = post(client, f"{path}/redrive")
    gone = post(client, f"{path}/discard")

    assert (sent.status_code, sent.location) == (303, "/ops/dead-letters")  # who may not see tasks is not led to one
    assert (gone.status_code, gone.location) == (303, "/ops/dead-letters")
    assert [one.verb for one in made.audit.entries[1:]] == ["redriveDeadLetter", "discardDeadLetter"]


def test_some_that_were_selected_are_redriven():
    two, gone = letter(), new_task_id()
    made = world(ONE, two)
    client = signed_in(made)
    path = f"/ops/dead-letters/selected/discard?id={ONE.task_id}&id={two.task_id}&id={ONE.task_id}&id={gone}"
    assert "This concerns <strong>3</strong> tasks" in client.get(path).text
    assert made.dead_letters.asked == []

    assert post(client, path).status_code == 303
    assert "2 dead letters were discarded; 1 could not be" in client.get("/ops").text
    entry = made.audit.entries[-1]
    assert (entry.verb, entry.target) == ("discardDeadLetters", "3 selected")
    assert entry.details == {"via": "console", "taskIds": [ONE.task_id, two.task_id, gone], "done": 2, "passedOver": 1}


def test_with_rabbitmq_down_a_selection_stops_and_shows_how_far_it_came():
    made = world(ONE)
    made.dead_letters.failure = NotSent("RabbitMQ did not answer")
    answer = post(signed_in(made), f"/ops/dead-letters/selected/redrive?id={ONE.task_id}")

    assert (answer.status_code, "0 of 1 were sent" in answer.text) == (503, True)
    assert made.audit.entries[-1].details["done"] == 0


@each("query", ["id=no/pe", "id=" + "&id=".join(new_task_id() for _ in range(51))])
def test_a_selection_that_no_page_makes_is_refused(query):
    assert signed_in(world(ONE)).get(f"/ops/dead-letters/selected/redrive?{query}").status_code == 422


def test_nothing_selected_is_nothing_to_do():
    answer = signed_in(world(ONE)).get("/ops/dead-letters/selected/redrive")

    assert (answer.status_code, "No dead letter is selected" in answer.text) == (200, True)


# --- mend and send ---------------------------------------------------------------------------------
MEND = f"/ops/dead-letters/{ONE.task_id}/mend"
SENT = {"p:/url": "https://robots.example/b", "p:/times": "2", "p:/token": ""}


def mended(made):
    return [asked[2] for asked in made.dead_letters.asked]


def test_a_mended_payload_keeps_the_secrets_that_were_not_replaced():
    made = world(ONE)
    client = signed_in(made)
    assert "hunter22" not in client.get(MEND).text
    answer = post(client, MEND, **SENT)

    assert answer.status_code == 303
    assert mended(made)[0].payload == {"url": "https://robots.example/b", "times": 2, "token": "hunter22-secret"}
    details = made.audit.entries[-1].details
    assert details == {"via": "console", "payloadEdited": True, "secretsKept": ["/token"]}


def test_a_replaced_secret_is_sent_and_in_no_log():
    made = world(ONE)
    assert post(signed_in(made), MEND, **SENT | {"p:/token": "brand-new"}).status_code == 303

    assert mended(made)[0].payload["token"] == "brand-new"
    assert "brand-new" not in repr(made.audit.entries)
    assert "secretsKept" not in made.audit.entries[-1].details


def test_an_error_is_at_its_field_and_a_typed_secret_is_not_shown_again():
    made = world(ONE)
    answer = post(signed_in(made), MEND, **SENT | {"p:/times": "often", "p:/token": "brand-new"})

    assert answer.status_code == 422
    assert re.search(r'id="i/times-error">Input should be a valid integer', answer.text)
    assert "brand-new" not in answer.text
    assert mended(made) == []
    assert made.audit.entries[-1].result == "validation-error"


def test_a_secret_that_is_kept_goes_to_no_other_host():
    made = world(ONE)
    answer = post(signed_in(made), MEND, **SENT | {"p:/url": "https://evil.example/"})

    assert (answer.status_code, "names no other host" in answer.text) == (422, True)
    assert mended(made) == []


def test_the_payload_is_mended_as_json():
    made = world(ONE)
    client = signed_in(made)
    page = client.get(f"{MEND}?as=json").text
    assert "[secret]" in page
    assert "hunter22" not in page
    text = json.dumps({"url": "https://robots.example/c", "token": "[secret]"})

    assert post(client, MEND, json=text).status_code == 303
    assert mended(made)[0].payload == {"url": "https://robots.example/c", "token": "hunter22-secret"}


@each(
    "text",
    ["{", "[]", '"x"', '{"url": "[secret]"}', '{"url": "a", "token": "xx[secret]"}', '{"url": "a", "url": "b"}', '{"url": "a", "more": 1}'],
)  # fmt: skip
def test_json_that_is_not_a_payload_is_not_sent(text):
    made = world(ONE)
    answer = post(signed_in(made), MEND, json=text)

    assert (answer.status_code, 'class="refusal"' in answer.text) == (422, True)
    assert mended(made) == []


def test_a_row_more_is_no_act():
    made = world(letter({"message": "x", "tags": ["a"]}, "greet"))
    path = f"/ops/dead-letters/{next(iter(made.dead_letters.held))}/mend"
    answer = post(signed_in(made), path, **{"p:/message": "y", "n:/tags": "1", "p:/tags/0": "a", "add": "/tags"})

    assert (answer.status_code, 'name="p:/tags/1"' in answer.text) == (200, True)
    assert [one.verb for one in made.audit.entries] == ["signIn"]


def test_who_may_not_submit_such_a_task_may_not_mend_one():
    assert signed_in(world(ONE), LETTERS).get(MEND).status_code == 403


def test_a_type_that_is_not_known_is_not_mended():
    strange = letter(type_="strange")
    client = signed_in(world(strange))

    assert client.get(f"/ops/dead-letters/{strange.task_id}/mend").status_code == 422
    assert "Mend and send" not in client.get(f"/ops/dead-letters/{strange.task_id}").text


# --- jobs ------------------------------------------------------------------------------------------
START = "/ops/jobs/start?verb=redrive&type=call&errorType=refused&fingerprint=9f86d081884c7d65"
FORM = {"limit": "7", "rate": "2.5", "canary": "1", "matched": "7"}


def test_a_job_asks_with_its_count_and_is_started_with_what_was_chosen():
    made = world()
    client = signed_in(made)
    page = client.get(START).text
    assert "This concerns <strong>7</strong> tasks" in page
    assert made.jobs.held == {}
    answer = post(client, START, **FORM)
    (job,) = made.jobs.held.values()

    assert (answer.status_code, answer.location) == (303, f"/ops/jobs/{job.id}")
    assert job.filter == TaskFilter(type="call", error_type="refused", error_fingerprint="9f86d081884c7d65")
    assert (job.verb, job.limit, job.rate, job.canary, job.by) == (JobVerb.REDRIVE, 7, 2.5, True, "admin")  # fmt: skip
    entry = made.audit.entries[-1]
    assert (entry.verb, entry.phase) == ("startJob", "begin")
    assert entry.target == "redrive type=call errorType=refused fingerprint=9f86d081884c7d65"
    assert entry.details["matched"] == 7


@each(
    ("query", "verb"),
    [
        ("", "retry-now"),
        ("?state=RETRY_WAIT", "retry-now"),
        ("?state=DEAD_LETTERED", "redrive"),
        ("?fingerprint=9f86d081884c7d65", "redrive"),
        ("?state=DEAD_LETTERED&verb=discard", "discard"),
    ],
)
def test_a_job_begins_with_the_verb_that_fits_and_never_with_one_that_ends_tasks(query, verb):
    page = signed_in(world()).get(f"/ops/jobs/new{query}").text

    assert f'<option value="{verb}" selected>' in page


def test_who_may_only_redrive_begins_with_that():
    page = signed_in(world(), LETTERS).get("/ops/jobs/new?state=RETRY_WAIT").text

    assert '<option value="redrive" selected>' in page


def test_without_a_filter_the_count_must_be_typed():
    made = world()
    client = signed_in(made)
    assert "Type 7 to go on" in client.get("/ops/jobs/start?verb=redrive").text
    for confirm in ({}, {"confirm": ""}, {"confirm": "6"}, {"confirm": "all"}, {"matched": "", "confirm": ""}):
        answer = post(client, "/ops/jobs/start?verb=redrive", **FORM | confirm)
        assert (answer.status_code, made.jobs.held) == (422, {})
    assert post(client, "/ops/jobs/start?verb=redrive", **FORM | {"limit": "900", "confirm": "7"}).status_code == 303

    assert [job.limit for job in made.jobs.held.values()] == [7]  # no more than was typed


@each("verb", ["cancel", "discard"])
def test_everything_is_neither_cancelled_nor_discarded_by_one_click(verb):
    made = world()
    client = signed_in(made)
    assert "choose a filter" in client.get(f"/ops/jobs/start?verb={verb}&type=&label=").text

    assert post(client, f"/ops/jobs/start?verb={verb}&type=", **FORM | {"confirm": "7"}).status_code == 422
    assert made.jobs.held == {}


@each(
    "query",
    ["verb=drop", "", "verb=cancel&kind=call", "verb=cancel&label=nonsense", "verb=cancel&state=NOPE", "verb=cancel&since=yesterday",
     "verb=redrive&label=a%3Db&label=a%3Dc"],
)  # fmt: skip
def test_a_filter_that_is_none_starts_nothing(query):
    made = world()
    client = signed_in(made)

    assert client.get(f"/ops/jobs/start?{query}").status_code == 422
    assert post(client, f"/ops/jobs/start?{query}", **FORM).status_code == 422
    assert made.jobs.held == {}


@each("form", [{"limit": "0"}, {"limit": "x"}, {"rate": "0"}, {"rate": "inf"}, {"rate": "nan"}, {"limit": "1000000"}])
def test_numbers_out_of_range_start_nothing(form):
    made = world()

    assert post(signed_in(made), START, **FORM | form).status_code == 422
    assert made.jobs.held == {}


def test_a_job_needs_the_scope_of_its_verb():
    made = world()
    client = signed_in(made, LETTERS)

    assert client.get("/ops/jobs/start?verb=cancel&type=call").status_code == 403
    assert post(client, "/ops/jobs/start?verb=cancel&type=call", **FORM).status_code == 403
    assert client.get(START).status_code == 200
    assert "cancel tasks" not in client.get("/ops/jobs/new").text
    assert made.jobs.held == {}


def test_no_match_is_nothing_to_start():
    made = world()
    made.jobs.matching = (0, True)

    assert "No task matches now" in signed_in(made).get(START).text


def running(**changes):
    job = BulkJob(
        new_task_id(),
        JobVerb.CANCEL,
        TaskFilter(type="call", labels={"a": "b"}),
        10,
        5.0,
        "op",
        1_795_487_760_000,
        matched=8,
    )
    return dataclasses.replace(job, **changes)


def test_a_job_shows_how_far_it_is_and_is_stopped():
    made = world()
    job = running(done=3, failed=1)
    made.jobs.add(job)
    client = signed_in(made)
    page = client.get(f"/ops/jobs/{job.id}").text
    assert 'value="50"' in page
    assert 'hx-trigger="every 1s"' in page
    assert "label=a=b" in page
    assert "This concerns <strong>4</strong> tasks" in client.get(f"/ops/jobs/{job.id}/stop").text
    assert post(client, f"/ops/jobs/{job.id}/stop").status_code == 303

    assert made.jobs.held[job.id].state is JobState.STOPPED
    assert "every 1s" not in client.get(f"/ops/jobs/{job.id}").text
    assert "It has ended" in client.get(f"/ops/jobs/{job.id}/stop").text
    assert post(client, f"/ops/jobs/{job.id}/stop").status_code == 409


def test_a_bulk_redrive_is_a_job_without_counts():
    made = world()
    bulk = BulkRedrive(DeadLetterFilter("call"), 10, 5.0, "op")
    made.dead_letters.jobs.append(bulk)
    client = signed_in(made)

    assert bulk.id in client.get("/ops/jobs").text
    assert client.get(f"/ops/jobs/{bulk.id}").status_code == 200
    assert client.get(f"/ops/jobs/{bulk.id}/stop").status_code == 200
    assert client.get("/ops/jobs/nope").status_code == 404


# --- schedules -------------------------------------------------------------------------------------
NEW = {
    "name": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "overlap": "queue", "catchUp": "none", "jitter": "5",
    "deadline": "60", "labels": "site=berlin\r\nteam=x", "p:/url": "https://robots.example/", "p:/times": "", "p:/token": "hunter22-secret",
}  # fmt: skip


def scheduled(made, text=ADMIN, **changes):
    client = signed_in(made, text)
    answer = post(client, "/ops/new-schedule/call", **NEW | changes)
    assert (answer.status_code, answer.location) == (303, "/ops/schedules/nightly"), answer.text
    return client


def test_a_schedule_is_created_as_filled_in():
    made = world()
    client = scheduled(made)
    stored = made.schedules.entries["nightly"].schedule

    assert (stored.cron, stored.timezone, stored.overlap, stored.catch_up) == (
        "0 3 * * *",
        "Europe/Berlin",
        "queue",
        "none",
    )
    assert (stored.jitter, stored.deadline, dict(stored.labels)) == (5, 60, {"site": "berlin", "team": "x"})
    assert stored.payload == {"url": "https://robots.example/", "token": "hunter22-secret"}
    entry = made.audit.entries[-1]
    assert (entry.verb, entry.target, entry.result) == ("putSchedule", "nightly", "ok")
    page = client.get("/ops/schedules/nightly").text
    assert page.count("UTC <span") == 5
    assert "hunter22" not in page
    assert "nightly" in client.get("/ops/schedules").text


def test_a_schedule_is_changed_and_keeps_its_secret():
    made = world()
    client = scheduled(made)
    page = client.get("/ops/schedules/nightly/edit").text
    assert "hunter22" not in page
    revision = re.search(r'name="revision" value="(\d+)"', page)[1]
    change = NEW | {"cron": "*/5 * * * *", "p:/token": "", "revision": revision}
    assert post(client, "/ops/schedules/nightly/edit", **change).status_code == 303
    stored = made.schedules.entries["nightly"].schedule

    assert (stored.cron, stored.payload["token"]) == ("*/5 * * * *", "hunter22-secret")
    again = post(client, "/ops/schedules/nightly/edit", **change)
    assert (again.status_code, "changed meanwhile" in again.text or "revision" in again.text) == (412, True)


def test_a_schedule_of_that_name_is_not_overwritten():
    made = world()
    client = scheduled(made)
    answer = post(client, "/ops/new-schedule/call", **NEW | {"cron": "1 1 1 1 *"})

    assert (answer.status_code, made.schedules.entries["nightly"].schedule.cron) == (409, "0 3 * * *")


@each(
    ("field", "value", "at"),
    [
        ("cron", "nonsense", "s-cron-error"),
        ("cron", "0 0 30 2 *", "s-cron-error"),
        ("timezone", "Mars/Base", "s-zone-error"),
        ("name", "No/Name", "s-name-error"),
        ("jitter", "-1", "s-jitter-error"),
        ("deadline", "soon", "s-deadline-error"),
        ("p:/times", "often", "i/times-error"),
    ],
)
def test_what_is_wrong_is_at_its_field(field, value, at):
    made = world()
    answer = post(signed_in(made), "/ops/new-schedule/call", **NEW | {field: value})

    assert (answer.status_code, f'id="{at}"' in answer.text) == (422, True)
    assert made.schedules.entries == {}


def test_the_next_runs_are_shown_before_saving():
    client = signed_in(world())

    assert client.get("/ops/next-runs?cron=0+3+*+*+*&timezone=UTC").text.count("03:00:00 UTC") == 5
    assert "Not a cron expression" in client.get("/ops/next-runs?cron=x").text
    assert "no such time zone" in client.get("/ops/next-runs?cron=0+3+*+*+*&timezone=../../etc/passwd").text


def test_the_verbs_on_a_schedule():
    made = world()
    client = scheduled(made)
    for act in ("pause", "resume", "run-now", "delete"):
        assert client.get(f"/ops/schedules/nightly/{act}").status_code == 200
        assert post(client, f"/ops/schedules/nightly/{act}").status_code == 303

    assert [one.verb for one in made.audit.entries[2:]] == [
        "pauseSchedule",
        "resumeSchedule",
        "runScheduleNow",
        "deleteSchedule",
    ]
    assert made.submitter.submitted[0].principal == "admin"
    assert client.get("/ops/schedules/nightly").status_code == 404


def test_another_principals_schedule_is_not_there_for_a_client_and_not_an_operators_to_change():
    made = world()
    scheduled(made)
    client = signed_in(made, CLIENT)
    for path in ("", "/edit", "/pause", "/run-now", "/delete"):
        assert client.get(f"/ops/schedules/nightly{path}").status_code == 404
        if path:
            assert post(client, f"/ops/schedules/nightly{path}", **NEW).status_code == 404
    assert "nightly" not in client.get("/ops/schedules").text
    assert post(client, "/ops/new-schedule/call", **NEW).status_code == 409
    own = {**NEW, "name": "shops"}
    assert post(client, "/ops/new-schedule/call", **own).status_code == 303
    operator = signed_in(made)
    assert "/ops/schedules/shops/edit" not in operator.get("/ops/schedules/shops").text

    assert operator.get("/ops/schedules/shops/edit").status_code == 409
    assert post(operator, "/ops/schedules/shops/edit", **own).status_code == 409
    assert post(operator, "/ops/schedules/shops/pause").status_code == 303


def test_a_schedule_needs_the_right_to_submit_such_a_task():
    text, entry = key("writer", api_keys.TASKS_READ, api_keys.SCHEDULES_WRITE, "tasks:write:greet")
    made = world(entries=(entry,))
    client = signed_in(made, text)

    page = client.get("/ops/new-schedule").text
    assert ("/ops/new-schedule/greet" in page, "/ops/new-schedule/call" in page) == (True, False)
    assert post(client, "/ops/new-schedule/call", **NEW).status_code == 403


@each("type_", ["nope", "webhook.deliver"])
def test_there_is_no_schedule_of_a_type_that_clients_cannot_submit(type_):
    assert signed_in(world()).get(f"/ops/new-schedule/{type_}").status_code == 422


# --- pauses ----------------------------------------------------------------------------------------
def test_a_pause_asks_with_what_it_would_hold_and_is_on_the_page_with_who_and_why():
    made = world()
    made.pauses.put(Pause("type:call", "before", "ada", 1, None))
    client = signed_in(made)
    page = client.get("/ops/pauses/new?kind=type&name=call").text
    assert 'value="type:call"' in page
    assert "This concerns <strong>" in page
    assert "by ada: before" in page
    path = "/ops/pauses/new?kind=type&name=call"
    assert post(client, path, what="type:call", reason="the vendor is down", minutes="60").status_code == 303
    shown = client.get("/ops/pauses").text

    assert ("the vendor is down" in shown, "/ops/pauses/type%3Acall/end" in shown) == (True, True)
    assert made.pauses.pauses["type:call"].by == "admin"


@each("query", ["", "kind=key&name=R-1", "kind=all", "kind=nope&name=x", "what=rm"])
def test_what_a_pause_would_hold_is_counted_where_it_can_be(query):
    page = signed_in(world()).get(f"/ops/pauses/new?{query}")

    assert (page.status_code, "This concerns" in page.text) == (200, query == "kind=all")


# --- the audit log ---------------------------------------------------------------------------------
def test_the_audit_log_is_filtered_by_the_url():
    made = world()
    client = signed_in(made)
    made.audit.add(AuditEntry("ada", "cancelTask", ONE.task_id, "ok", details={"via": "console", "n": [1, 2]}))
    made.audit.add(AuditEntry("bob", "pauseTasks", "all", "ok"))
    page = client.get("/ops/audit?principal=ada").text

    assert f"/ops/tasks/{ONE.task_id}" in page
    assert "pauseTasks</a>" not in page
    assert client.get("/ops/audit?principal=&verb=cancelTask").location == "/ops/audit?verb=cancelTask"
    assert "No entry matches" in client.get("/ops/audit?principal=nobody").text
    assert 'class="blank failed"' in client.get("/ops/audit?cursor=bad").text


# --- what others have written, and servers that are down --------------------------------------------
def test_nothing_that_others_wrote_becomes_markup():
    bad = letter(
        {"message": HOSTILE, HOSTILE: HOSTILE}, HOSTILE, labels={"a": HOSTILE}, worker=HOSTILE,
    )  # fmt: skip
    bad = dataclasses.replace(
        bad, principal=HOSTILE, error=ErrorInfo(HOSTILE, HOSTILE, retryable=False), dead_reason=HOSTILE
    )
    bad.message.headers[HOSTILE] = HOSTILE
    mendable = letter({"message": HOSTILE, "tags": [HOSTILE], HOSTILE: {HOSTILE: HOSTILE}}, "greet")
    made = grouped(world(bad, mendable), type=HOSTILE, error_type=HOSTILE)
    made.jobs.add(running(by=HOSTILE, reason=HOSTILE, filter=TaskFilter(type=HOSTILE, labels={HOSTILE: HOSTILE})))
    made.pauses.put(Pause("all", HOSTILE, HOSTILE, 1, None))
    made.audit.add(
        AuditEntry(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, details={HOSTILE: [HOSTILE]}, client=HOSTILE)
    )
    client = signed_in(made)
    job = next(iter(made.jobs.held))
    client = scheduled(made, **{"p:/url": HOSTILE, "labels": "a=<script>alert(1)</script>"})
    made.schedules.entries["nightly"] = dataclasses.replace(made.schedules.entries["nightly"], error=HOSTILE)
    paths = (
        "/ops/dead-letters", "/ops/dead-letters/list", f"/ops/dead-letters/{bad.task_id}", f"/ops/dead-letters/{mendable.task_id}/mend",
        f"/ops/dead-letters/{mendable.task_id}/mend?as=json", f"/ops/dead-letters/{bad.task_id}/redrive", "/ops/jobs", f"/ops/jobs/{job}",
        f"/ops/jobs/{job}/stop", "/ops/pauses", "/ops/pauses/all/end", "/ops/pauses/new?what=all", "/ops/audit",
        "/ops/schedules", "/ops/schedules/nightly", "/ops/schedules/nightly/edit", "/ops/schedules/nightly/delete",
    )  # fmt: skip
    for path in paths:
        page = client.get(path)
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text, path
        assert "<img src=x" not in page.text, path


@each("query", [f"type={HOSTILE}", f"errorType={HOSTILE}&label={HOSTILE}"])
@each("path", ["/ops/jobs/new", "/ops/dead-letters/list", "/ops/audit", "/ops/jobs/start"])
def test_nothing_in_the_url_becomes_markup(path, query):
    page = signed_in(world()).get(f"{path}?{query}")

    assert page.status_code in (200, 422)
    assert "<script>alert" not in page.text
    assert "<img src=x" not in page.text


def down(*_args, **_kwargs):
    raise StoreUnavailable("Redis did not answer")


def test_with_redis_down_each_page_shows_it():
    made = world(ONE)
    client = signed_in(made)
    made.dead_letters.scan = made.dead_letters.page = made.jobs.all = made.pauses.all = made.audit.page = down
    made.schedules.all = down
    for path in ("/dead-letters", "/dead-letters/list", "/jobs", "/pauses", "/schedules", "/audit"):
        page = client.get(f"/ops{path}")
        assert (page.status_code, 'class="blank failed"' in page.text) == (200, True), path


def test_with_redis_down_an_act_is_a_503_and_a_page():
    made = world(ONE)
    client = signed_in(made)
    made.jobs.count = made.pauses.put = down
    for answer in (client.get(START), post(client, "/ops/pauses/new", what="all", reason="x", minutes="")):
        assert (answer.status_code, "not available" in answer.text) == (503, True)


def test_with_rabbitmq_down_a_schedule_is_stored_and_the_page_shows_it():
    made = world()
    made.ticks.error = NotSent("RabbitMQ did not answer")
    answer = post(signed_in(made), "/ops/new-schedule/call", **NEW)

    assert (answer.status_code, "stored" in answer.text) == (503, True)


def test_with_nothing_there_each_page_is_empty():
    client = signed_in(world())
    for path in ("/dead-letters", "/dead-letters/list", "/jobs", "/pauses", "/schedules"):
        assert 'class="blank"' in client.get(f"/ops{path}").text
