"""Who gets into the console, and what hostile users get."""

import dataclasses
import gzip
import re
import time

from dispatch.config import api_keys
from dispatch.config.api_keys import SCOPES
from dispatch.errors import StoreUnavailable
from dispatch.gateway.http.key_source import KeySource
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops.assets import STATIC
from dispatch.gateway.ops.session import Sessions
from dispatch.protocol.concurrency import TypeLimits
from dispatch.protocol.rates import Rate
from dispatch.protocol.record import Brief, ErrorInfo, State
from dispatch.store.concurrency import KeyView
from dispatch.store.rates import RateView
from support.cases import each
from support.console import AXE, PEPPER, key, vendored
from support.gateway_fakes import GREET, FakeDeadLetters, FakeTasks, World, record

ADMIN, ADMIN_ENTRY = key("admin", *SCOPES)
VIEWER, VIEWER_ENTRY = key("viewer", api_keys.TASKS_READ_ALL)
CLIENT, CLIENT_ENTRY = key("shop", api_keys.TASKS_READ, api_keys.TASKS_WRITE)
TASK = record(principal="robotics", state=State.DELAYED)
PATH = f"/ops/tasks/{TASK.task_id}"


def world(*tasks, entries=(ADMIN_ENTRY, VIEWER_ENTRY, CLIENT_ENTRY), **options):
    return World(
        tasks=FakeTasks(*(tasks or (TASK,))), options={"api_keys": entries, "api_key_pepper": PEPPER, **options}
    )


def token(page):
    return re.search(r'name="token" value="([0-9a-f]{64})"', page.text)[1]


def sign_in(client, text, **more):
    form = {"key": text, "token": token(client.get("/ops/sign-in")), **more}
    return client.post("/ops/sign-in", data=form)


def signed_in(made, text=ADMIN):
    client = made.client()
    assert sign_in(client, text).status_code == 303
    return client


def cookie(client):
    found = client.get_cookie("ops", path="/ops")
    return found and found.value


# --- the sign-in -----------------------------------------------------------------------------------
@each("path", ["/ops", "/ops/tasks", PATH, f"{PATH}/cancel", "/ops/live", "/ops/nope"])
def test_nothing_is_seen_without_a_sign_in(path):
    answer = world().client().get(path)

    assert (answer.status_code, answer.location.partition("?")[0]) == (303, "/ops/sign-in")


def test_the_cookie_is_for_the_console_alone_and_out_of_reach_of_scripts():
    client = world().client()
    set_cookie = next(each for each in sign_in(client, ADMIN).headers.getlist("Set-Cookie") if each.startswith("ops="))

    assert {"HttpOnly", "Path=/ops", "SameSite=Strict"} <= set(set_cookie.split("; "))
    assert "Secure" not in set_cookie
    assert ADMIN not in set_cookie


def test_over_https_the_cookie_never_goes_in_the_clear():
    client = world().client()
    environ = {"wsgi.url_scheme": "https"}
    page = client.get("/ops/sign-in", environ_overrides=environ, base_url="https://localhost")
    answer = client.post(
        "/ops/sign-in",
        data={"key": ADMIN, "token": token(page)},
        environ_overrides=environ,
        base_url="https://localhost",
    )
    names = [each.partition("=")[0] for each in answer.headers.getlist("Set-Cookie") if "Max-Age=0" not in each]

    assert (answer.status_code, names) == (303, ["__Secure-ops"])
    assert all("Secure" in each for each in answer.headers.getlist("Set-Cookie"))


@each("text", ["", "x", "rk_admin_wrongwrongwrongwrongwrong", "é" * 50])
def test_a_wrong_key_gets_no_session(text):
    client = world().client()
    answer = sign_in(client, text)

    assert (answer.status_code, cookie(client)) == (401, None)
    assert "not valid" in answer.text


def test_a_sign_in_begins_a_new_session_whatever_cookie_was_there():
    client = world().client()
    sessions = Sessions(PEPPER, idle=600, longest=600)
    planted = sessions.write(sessions.new("", time.time()))
    client.set_cookie("ops", planted, path="/ops")
    sign_in(client, ADMIN)
    first = cookie(client)
    sign_in(client, ADMIN)

    assert len({planted.partition(".")[0], first.partition(".")[0], cookie(client).partition(".")[0]}) == 3


def test_a_form_of_another_visitor_signs_no_one_in():
    made = world()
    app = made.app()
    other, client = app.test_client(), app.test_client()
    client.get("/ops/sign-in")
    answer = client.post("/ops/sign-in", data={"key": ADMIN, "token": token(other.get("/ops/sign-in"))})

    assert (answer.status_code, cookie(client)) == (403, None)


@each(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_signs_no_one_in(headers):
    client = world().client()
    form = {"key": ADMIN, "token": token(client.get("/ops/sign-in"))}

    assert client.post("/ops/sign-in", data=form, headers=headers).status_code == 403


@each("wanted", ["https://evil.example/", "//evil.example/ops", "/\\evil.example"])
def test_a_link_to_the_sign_in_leads_nowhere_else(wanted):
    assert sign_in(world().client(), ADMIN, next=wanted).location == "/ops"


def test_attempts_to_sign_in_are_counted_by_address():
    made = world()

    def spend(who):
        if who.startswith("sign-in:"):
            raise Problem("quota-exceeded", retry_after=7)
        return {}

    made.spend = spend
    answer = sign_in(made.client(), ADMIN)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_a_form_of_megabytes_is_refused():
    assert world().client().post("/ops/sign-in", data={"key": "x" * 2_000_000}).status_code == 413


def test_a_sign_in_and_a_sign_out_are_in_the_audit_log():
    made = world()
    client = signed_in(made)
    page = client.get("/ops")
    client.post("/ops/sign-out", data={"token": token(page)})

    assert [(one.verb, one.principal, one.result) for one in made.audit.entries] == [
        ("signIn", "admin", "ok"),
        ("signOut", "admin", "ok"),
    ]


# --- sessions that are over ------------------------------------------------------------------------
def test_a_copied_cookie_is_worth_nothing_after_the_sign_out():
    made = world()
    client = signed_in(made)
    stolen = cookie(client)
    assert client.post("/ops/sign-out", data={"token": token(client.get("/ops"))}).status_code == 303
    client.set_cookie("ops", stolen, path="/ops")

    assert client.get("/ops").status_code == 303


def test_a_cookie_that_was_made_elsewhere_is_worth_nothing():
    client = world().client()
    sessions = Sessions("guess", idle=600, longest=600)
    client.set_cookie(
        "ops", sessions.write(sessions.new(api_keys.parse(ADMIN_ENTRY).fingerprint, time.time())), path="/ops"
    )

    assert client.get("/ops").status_code == 303


def test_a_session_that_was_begun_without_a_key_is_none_where_keys_are_needed():
    client = world().client()
    sessions = Sessions(PEPPER, idle=600, longest=600)
    client.set_cookie("ops", sessions.write(sessions.new("", time.time())), path="/ops")

    assert client.get("/ops").status_code == 303


def test_a_key_that_is_revoked_or_loses_a_scope_has_lost_it_with_the_next_request(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{ADMIN_ENTRY}\n")
    path.chmod(0o600)
    made = world(entries=())
    made.keys = KeySource((), str(path))
    client = signed_in(made)
    assert client.get(f"{PATH}/cancel").status_code == 200
    digest = api_keys.parse(ADMIN_ENTRY).digest
    path.write_text(f"admin:{digest}:{api_keys.TASKS_READ_ALL}\n")
    made.keys.refresh()
    form = {"token": token(client.get("/ops"))}
    assert client.post(f"{PATH}/cancel", data=form).status_code == 403
    assert client.get(PATH).status_code == 200
    path.write_text(f"{VIEWER_ENTRY}\n")
    made.keys.refresh()

    assert client.get(PATH).status_code == 303
    assert client.get(PATH, headers={"HX-Request": "true"}).headers["HX-Redirect"] == "/ops/sign-in"
    assert client.get("/ops/live", headers={"Accept": "text/event-stream"}).status_code == 204
    assert made.tasks.ordered == []


def test_a_page_that_updates_itself_keeps_no_session_alive():
    client = signed_in(world())
    sessions = Sessions(PEPPER, idle=3_600, longest=43_200)
    old = sessions.new(api_keys.parse(ADMIN_ENTRY).fingerprint, time.time() - 3_000)
    client.set_cookie("ops", sessions.write(old), path="/ops")
    client.get("/ops/tasks", headers={"HX-Request": "true", "X-Ops-Live": "1"})
    assert cookie(client) == sessions.write(old)
    client.get("/ops/tasks")

    assert cookie(client) != sessions.write(old)


# --- acts ------------------------------------------------------------------------------------------
def test_an_act_asks_first_and_changes_nothing():
    made = world()
    answer = signed_in(made).get(f"{PATH}/cancel")

    assert "This concerns <strong>1</strong> task" in answer.text
    assert made.tasks.ordered == []
    assert [one.verb for one in made.audit.entries] == ["signIn"]


@each("form", [{}, {"token": ""}, {"token": "0" * 64}])
@each("headers", [{}, {"HX-Request": "true"}])
def test_an_act_without_the_sessions_token_does_nothing(form, headers):
    made = world()

    assert signed_in(made).post(f"{PATH}/cancel", data=form, headers=headers).status_code == 403
    assert made.tasks.ordered == []


def test_an_act_from_another_sites_page_does_nothing():
    made = world()
    client = signed_in(made)
    form = {"token": token(client.get("/ops"))}

    assert client.post(f"{PATH}/cancel", data=form, headers={"Origin": "https://evil.example"}).status_code == 403
    assert made.tasks.ordered == []


def test_a_token_of_another_session_does_nothing():
    made = world()
    app = made.app()
    attacker, client = app.test_client(), app.test_client()
    sign_in(attacker, VIEWER)
    sign_in(client, ADMIN)

    assert client.post(f"{PATH}/cancel", data={"token": token(attacker.get("/ops"))}).status_code == 403
    assert made.tasks.ordered == []


def test_an_act_is_carried_out_and_recorded_with_who_and_how():
    made = world()
    client = signed_in(made)
    answer = client.post(f"{PATH}/cancel", data={"token": token(client.get("/ops"))})

    assert (answer.status_code, answer.location) == (303, PATH)
    assert made.tasks.ordered == [("cancel", TASK.task_id, "admin")]
    entry = made.audit.entries[-1]
    assert (entry.verb, entry.principal, entry.target, entry.details) == (
        "cancelTask",
        "admin",
        TASK.task_id,
        {"via": "console"},
    )
    assert "asked to stop" in client.get(PATH).text or "cancelled" in client.get(PATH).text


def test_what_an_act_has_done_is_for_the_page_that_follows_and_not_for_one_that_updates_itself():
    made = world()
    client = signed_in(made)
    client.post(f"{PATH}/cancel", data={"token": token(client.get("/ops"))})
    updated, followed, again = client.get(PATH, headers={"X-Ops-Live": "1"}), client.get(PATH), client.get(PATH)

    assert ["data-note" in answer.text for answer in (updated, followed, again)] == [False, True, False]


@each("act", ["cancel", "retry-now", "redrive", "discard"])
def test_a_viewer_who_posts_an_act_gets_403_and_an_entry_in_the_audit_log(act):
    made = world()
    client = signed_in(made, VIEWER)
    answer = client.post(f"{PATH}/{act}", data={"token": token(client.get("/ops"))})

    assert answer.status_code == 403
    assert made.tasks.ordered == []
    assert made.audit.entries[-1].result == "insufficient-scope"
    assert f"{PATH}/{act}" not in client.get(PATH).text


def test_a_client_sees_and_cancels_its_own_tasks_only():
    own = record(principal="shop", task_id="01a21dd2-ce3c-760e-882d-35a36374b982")
    made = world(TASK, own)
    client = signed_in(made, CLIENT)
    form = {"token": token(client.get("/ops"))}

    assert client.get(PATH).status_code == 404
    assert client.get(f"{PATH}/payload").status_code == 404
    assert client.get(f"{PATH}/live").status_code == 404
    assert client.post(f"{PATH}/cancel", data=form).status_code == 404
    assert client.get("/ops/tasks?principal=robotics").status_code == 200
    assert TASK.task_id not in client.get("/ops/tasks?principal=robotics").text
    client.get("/ops/tasks")
    assert made.tasks.listed["principal"] == "shop"
    assert client.post(f"/ops/tasks/{own.task_id}/cancel", data=form).status_code == 303


def test_a_viewer_of_all_tasks_sees_all_by_default():
    made = world()
    signed_in(made, VIEWER).get("/ops/tasks")

    assert made.tasks.listed["principal"] is None


def test_pages_are_listed_and_opened_by_scope():
    text, entry = key("writer", api_keys.TASKS_WRITE)
    client = signed_in(world(entries=(entry,)), text)

    assert "/ops/tasks" not in client.get("/ops").text.partition("<main")[0]
    assert client.get("/ops/tasks").status_code == 403
    assert "tasks:read" in client.get("/ops/tasks").text


# --- what clients send, in an operator's browser ---------------------------------------------------
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}"


def test_nothing_that_a_client_sent_becomes_markup():
    bad = record(
        principal=HOSTILE, type=HOSTILE, state=State.RUNNING, labels={"a": HOSTILE}, worker=HOSTILE, held_by=HOSTILE,
        error=ErrorInfo(HOSTILE, HOSTILE, retryable=True), progress={"percent": 5, "message": HOSTILE}, result={HOSTILE: HOSTILE},
        request_id=HOSTILE, concurrency_key=HOSTILE,
    )  # fmt: skip
    made = world(bad)
    made.tasks.hops = lambda _: [
        {"seq": 1, "at": "2027-01-15T08:00:00.000Z", "kind": "started", "worker": HOSTILE, "attempt": 1},
        {"seq": 2, "at": "2027-01-15T08:00:01.000Z", "kind": "failed", "errorType": HOSTILE, "message": HOSTILE},
    ]
    client = signed_in(made)
    query = {"type": HOSTILE, "label": f"a={HOSTILE}"}
    for page in (
        client.get(f"/ops/tasks/{bad.task_id}"),
        client.get("/ops/tasks"),
        client.get("/ops/tasks", query_string=query),
    ):
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text


@each("path", ["/ops", "/ops/tasks", PATH, f"{PATH}/cancel", "/ops/nope"])
def test_every_page_keeps_scripts_frames_and_caches_out(path):
    answer = signed_in(world()).get(path)
    policy = answer.headers["Content-Security-Policy"]

    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["X-Frame-Options"], answer.headers["Cache-Control"]) == ("DENY", "no-store")
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son[a-z]+=|<style|hx-on|javascript:", answer.text)


# --- servers that are down -------------------------------------------------------------------------
def down(*_args, **_kwargs):
    raise StoreUnavailable("Redis did not answer")


def test_with_redis_down_pages_show_it_and_acts_do_not_run():
    made = world()
    client = signed_in(made)
    form = {"token": token(client.get("/ops"))}
    made.ended_sessions.error = StoreUnavailable("Redis did not answer")
    made.tasks.list = down
    made.checks["store"] = lambda: "Redis: connection refused"
    shown = client.get("/ops/tasks")

    assert (shown.status_code, "not available" in shown.text) == (200, True)
    assert client.get("/ops").status_code == 200
    assert client.post(f"{PATH}/cancel", data=form).status_code == 503
    assert made.tasks.ordered == []


def test_a_task_that_does_not_exist_is_a_page_not_found():
    assert signed_in(world()).get("/ops/tasks/nope").status_code == 404


# --- queues, keys, workers -------------------------------------------------------------------------
def test_a_lane_is_paused_and_resumed_as_over_http():
    made = world()
    client = signed_in(made)
    page = client.get("/ops/pauses/new?what=type:echo")
    form = {"token": token(page), "what": "type:echo", "reason": HOSTILE, "minutes": "15"}
    assert 'value="type:echo"' in page.text
    assert client.post("/ops/pauses/new", data=form).location == "/ops/pauses"
    shown = client.get("/ops/pauses").text
    assert "type:echo" in shown
    assert "<script>alert" not in shown
    assert "This concerns" in client.get("/ops/pauses/type:echo/end").text
    assert client.post("/ops/pauses/type:echo/end", data=form).status_code == 303
    assert client.post("/ops/pauses/type:echo/end", data=form).status_code == 404
    assert [(one.verb, one.target, one.result) for one in made.audit.entries[1:]] == [
        ("pauseTasks", "type:echo", "ok"), ("resumeTasks", "type:echo", "ok"), ("resumeTasks", "type:echo", "pause-not-found"),
    ]  # fmt: skip
    assert made.audit.entries[1].details["via"] == "console"


@each(
    "form",
    [
        {"what": "everything"},
        {"what": "lane:none"},
        {"what": "all", "reason": ""},
        {"what": "all", "reason": "x" * 501},
    ],
)
def test_a_wrong_pause_is_refused(form):
    made = world()
    client = signed_in(made)
    given = {"token": token(client.get("/ops")), "reason": "why", "minutes": "", **form}

    assert client.post("/ops/pauses/new", data=given).status_code == 422
    assert made.pauses.all() == []


@each("path", ["/ops/queues", "/ops/workers", "/ops/keys", "/ops/history", "/ops/pauses/new"])
def test_what_operators_see_needs_their_scopes(path):
    made = world()

    assert signed_in(made, CLIENT).get(path).status_code == 403
    assert signed_in(made).get(path).status_code == 200


def test_a_key_shows_who_holds_it_and_who_waits():
    made = world()
    made.concurrency.keys["robot:r-7"] = KeyView("robot:r-7", 1, ((TASK.task_id, 1_900_000_000_000),), 3, ("gone",))
    made.tasks.briefs = lambda ids: [Brief("greet", State.RUNNING) if each == TASK.task_id else None for each in ids]
    shown = signed_in(made).get("/ops/keys").text

    assert f"/ops/tasks/{TASK.task_id}" in shown
    assert "robot:r-7" in shown


def test_a_rate_shows_how_much_of_it_is_used_and_who_waits():
    made = world()
    rate = Rate(20, 60)
    made.types = {"sms.send": dataclasses.replace(GREET, limits=TypeLimits(rate=rate))}
    made.rates.rates["rate:sms.send"] = RateView("rate:sms.send", rate, 14, 3, (TASK.task_id,))
    shown = signed_in(made).get("/ops/keys").text

    assert "14 of 20 in the last minute" in shown
    assert f"/ops/tasks/{TASK.task_id}" in shown
    assert "/ops/pauses/new?what=type:sms.send" in shown


# --- a task is found -------------------------------------------------------------------------------
@each(
    ("text", "place"),
    [
        (TASK.task_id, PATH),
        (f" {TASK.task_id} ", PATH),
        ("customer=acme", "/ops/tasks?label=customer%3Dacme"),
        ("greet", "/ops/tasks?type=greet"),
        ("0196f0a0-0000-7000-8000-000000000000", "/ops/tasks?requestId=0196f0a0-0000-7000-8000-000000000000"),
        ("//evil.example", "/ops/tasks?requestId=%2F%2Fevil.example"),
        ("", "/ops/tasks"),
    ],
)
def test_a_task_is_found_by_what_an_operator_has_of_it(text, place):
    made = world()
    made.tasks.briefs = lambda ids: [Brief("greet", State.RUNNING) if each == TASK.task_id else None for each in ids]

    assert signed_in(made).get("/ops/find", query_string={"q": text}).location == place


# --- saved views -----------------------------------------------------------------------------------
def test_a_filter_is_saved_listed_and_removed_by_its_own_principal():
    made = world()
    client = signed_in(made, CLIENT)
    page = client.get("/ops/views/new?query=state%3DFAIL")
    form = {"token": token(page), "name": HOSTILE[:60], "query": "state=QUEUED&label=a%3Db&cursor=x&evil=1"}
    assert client.post("/ops/views/new", data=form).location == "/ops/tasks?state=QUEUED&label=a%3Db"
    assert {("shop", HOSTILE[:60]): "state=QUEUED&label=a%3Db"} == made.views.saved
    shown = client.get("/ops/tasks?state=QUEUED&label=a%3Db").text
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert" in shown
    assert "&lt;script&gt;" not in signed_in(made, VIEWER).get("/ops/tasks").text
    assert client.post("/ops/views/drop", data=form).status_code == 303
    assert client.post("/ops/views/drop", data=form).status_code == 404
    assert made.views.saved == {}


@each("form", [{"name": ""}, {"name": "x" * 61}, {"query": ""}, {"query": "limit=5"}, {"name": "a\x00b"}])
def test_a_view_needs_a_name_and_a_filter(form):
    made = world()
    client = signed_in(made)

    assert (
        client.post(
            "/ops/views/new", data={"token": token(client.get("/ops")), "name": "n", "query": "type=echo", **form}
        ).status_code
        == 422
    )
    assert made.views.saved == {}


# --- the rest --------------------------------------------------------------------------------------
def test_without_keys_only_this_machine_gets_in():
    client = World().client()

    assert client.get("/ops").status_code == 200
    assert client.get("/ops/sign-in").status_code == 303
    assert client.get("/ops", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code == 401
    assert client.get("/ops", headers={"Host": "rebound.example"}).status_code == 401


def test_without_keys_forms_have_their_token_all_the_same():
    made = World(tasks=FakeTasks(TASK))
    client = made.client()
    assert client.post(f"{PATH}/cancel", data={"token": "0" * 64}).status_code == 403
    form = {"token": token(client.get(f"{PATH}/cancel"))}

    assert client.post(f"{PATH}/cancel", data=form).status_code == 303


def test_the_console_can_be_left_out():
    assert World(options={"console": "false"}).client().get("/ops").status_code == 404


def test_empty_fields_of_the_form_leave_the_url():
    answer = signed_in(world()).get("/ops/tasks?status=&type=echo&label=&label=a%3Db")

    assert (answer.status_code, answer.location) == (303, "/ops/tasks?type=echo&label=a%3Db")


@each(
    "query",
    [
        "state=NOPE",
        "limit=0",
        "cursor=bad",
        "since=yesterday",
        "label=nonsense",
        "state=QUEUED&state=HELD",
        "unknown=1",
    ],
)
def test_a_wrong_filter_is_explained_on_the_page(query):
    answer = signed_in(world()).get(f"/ops/tasks?{query}")

    assert (answer.status_code, 'class="blank failed"' in answer.text) == (200, True)


def test_a_dead_letter_is_redriven_and_discarded():
    letter = record(state=State.DEAD_LETTERED, principal="robotics")
    made = World(
        tasks=FakeTasks(letter),
        dead_letters=FakeDeadLetters(letter),
        options={"api_keys": (ADMIN_ENTRY,), "api_key_pepper": PEPPER},
    )
    client = signed_in(made)
    path = f"/ops/tasks/{letter.task_id}"
    form = {"token": token(client.get(f"{path}/redrive"))}

    assert f'<a class="button" href="/ops/dead-letters/{letter.task_id}">' in client.get(path).text
    assert client.post(f"{path}/redrive", data=form).status_code == 303
    assert client.post(f"{path}/discard", data=form).status_code == 303
    assert [one.verb for one in made.audit.entries[1:]] == ["redriveDeadLetter", "discardDeadLetter"]


def test_static_files_are_kept_by_browsers_and_need_no_session():
    with world().client().get("/ops/static/ops.css") as answer:
        assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True)
    assert world().client().get("/ops/static/../console.py").status_code in (303, 404)


def test_static_files_are_compressed_for_those_who_take_it_and_pages_never():
    client = signed_in(world())
    accepted = {"Accept-Encoding": "gzip, br"}
    packed, plain = (client.get("/ops/static/ops.css", headers=headers) for headers in (accepted, {}))

    assert gzip.decompress(packed.data) == plain.data
    assert [each.headers["Vary"] for each in (packed, plain)] == ["Accept-Encoding"] * 2
    assert client.get("/ops/tasks", headers=accepted).content_encoding is None
    assert client.get("/ops/static/../door.py", headers=accepted).status_code == 404


def test_the_vendored_files_are_what_was_published_on_npm():
    vendored(STATIC / "vendor")


def test_the_vendored_rules_of_axe_are_what_was_published():
    vendored(AXE)
