"""Every page and act of the console in a browser, on a real system."""

import pytest

from support.console import ADMIN, visiting
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("site")

#: What a client could send to be run in an operator's browser.
HOSTILE = "<img/src=x/onerror=alert(1)>"


@pytest.fixture(scope="module")
def site(system):
    """A system with tasks in many states: its URL, their ids by what they are, and a client of its API."""
    url, client = system
    return url, _submitted(client), client


def _submitted(client):
    orders = {
        "done": {"payload": {"message": "hello"}, "options": {"labels": {"customer": "acme", "site": "berlin"}}},
        "dead": {"payload": {"message": HOSTILE, "permanent": True}, "options": {"labels": {"note": HOSTILE}}},
        "dead-too": {"payload": {"message": "x", "permanent": True}},
        "retried": {"payload": {"message": "again", "fail_times": 1}},
        "later": {"payload": {"message": "later"}, "options": {"delaySeconds": 1_800}},
        "later-too": {"payload": {"message": "later"}, "options": {"delaySeconds": 3_000}},
        "runs": {"payload": {"message": "slow", "sleep_seconds": 120}, "options": {"concurrencyKey": "r-7"}},
        "waits": {"payload": {"message": "next"}, "options": {"concurrencyKey": "r-7"}},
    }
    found = {}
    for name, order in orders.items():
        answer = client.post("/v1/tasks", json={"type": "echo", **order})
        assert answer.status_code == 202, answer.text
        found[name] = answer.json()["taskId"]
    wanted = {
        "done": "SUCCEEDED",
        "dead": "DEAD_LETTERED",
        "dead-too": "DEAD_LETTERED",
        "retried": "SUCCEEDED",
        "runs": "RUNNING",
    }
    for name, state in wanted.items():
        eventually(lambda name=name, state=state: client.get(f"/v1/tasks/{found[name]}").json()["state"] == state, 30)
    return found


def test_the_overview_shows_the_system_and_stays_live(seen):
    page = seen.open("/ops")
    page.wait_for_selector(".chip.live:has-text('live')")
    page.wait_for_selector("text=dead letters wait")
    page.wait_for_selector(".node.work")
    page.wait_for_selector(".chart canvas")
    seen.inspect("overview")


def test_the_overview_leads_to_the_groups_of_dead_letters(seen):
    page = seen.open("/ops")
    page.click("a:has-text('dead letters wait')")
    page.wait_for_url("**/ops/dead-letters")
    page.wait_for_selector("td:has-text('Pause type'), .acts a:has-text('Redrive')")


def test_all_is_paused_from_the_queues_and_resumed_where_pauses_are(seen, site):
    page = seen.open("/ops/queues")
    page.wait_for_selector("code:has-text('robot.task.q')")
    seen.inspect("queues")
    page.click("tr:has(code:text-is('robot.task.q')) a:has-text('Pause')")
    page.fill("dialog #field-reason", "the vendor repairs its API")
    seen.inspect("pause")
    page.click("dialog button:has-text('Pause')")
    page.wait_for_url("**/ops/pauses")
    page.wait_for_selector("[data-note]")
    seen.inspect("pauses-lane")
    seen.open("/ops/queues").wait_for_selector("tr:has(code:text-is('robot.task.q')) .tag:has-text('paused')")
    seen.inspect("queues-paused")
    seen.open("/ops").wait_for_selector(".concerns a:has-text('Everything is paused by night-shift')")
    page.click(".concerns a:has-text('Everything is paused')")
    page.click("a:has-text('Resume')")
    page.click("dialog button:has-text('Resume')")
    page.wait_for_selector("text=Nothing is paused")

    assert site[2].get("/v1/pauses").json()["items"] == []


def test_keys_and_workers_are_shown(seen, site):
    _, tasks, _ = site
    page = seen.open("/ops/keys")
    page.wait_for_selector(f"a[href='/ops/tasks/{tasks['runs']}']")
    page.wait_for_selector(f"a[href='/ops/tasks/{tasks['waits']}']")
    seen.inspect("keys")
    page.goto(f"{seen.base}/ops/workers")
    page.wait_for_selector("code:has-text('@test')")
    seen.inspect("workers")


def test_the_sign_in_leads_back_to_where_it_was_needed(browser, site):
    with visiting(browser, site[0]) as seen:
        page = seen.open("/ops/tasks?state=DEAD_LETTERED")
        assert "/ops/sign-in" in page.url
        seen.inspect("sign-in")
        page.fill("#key", ADMIN)
        page.click("button:has-text('Sign in')")
        page.wait_for_url("**/ops/tasks?state=DEAD_LETTERED")
        page.click("button:has-text('Sign out')")
        page.wait_for_selector("#key")
        seen.open("/ops/tasks")

        assert "/ops/sign-in" in page.url


def test_tasks_are_found_by_the_filters_of_the_url(seen, site):
    _, tasks, _ = site
    page = seen.open("/ops/tasks")
    page.wait_for_selector("[data-rows]")
    seen.inspect("tasks")
    page.select_option("#f-state", "DEAD_LETTERED")
    page.click("button:has-text('Find')")
    page.wait_for_url("**/ops/tasks?state=DEAD_LETTERED")

    assert {tasks["dead"], tasks["dead-too"]} == {
        row.get_attribute("title") for row in page.query_selector_all("[data-rows] th a")
    }
    assert page.locator("text=<img/src").first.is_visible()
    page.goto(page.url.replace("DEAD_LETTERED", "NOPE"))
    assert page.locator(".failed").is_visible()


def test_a_task_is_found_from_any_page_by_its_id_or_a_label(seen, site):
    _, tasks, _ = site
    page = seen.open("/ops/workers")
    page.keyboard.press("/")
    page.keyboard.type(tasks["done"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/ops/tasks/{tasks['done']}")
    page.fill("[name=q]", "customer=acme")
    page.keyboard.press("Enter")
    page.wait_for_url("**/ops/tasks?label=customer%3Dacme")
    page.wait_for_selector(f"[title='{tasks['done']}']")


def test_a_filter_is_saved_and_removed(seen):
    page = seen.open("/ops/tasks?state=DEAD_LETTERED")
    page.click("form.filters a:has-text('Save')")
    page.fill("dialog #field-name", "the dead")
    seen.inspect("save-view")
    page.click("dialog button:has-text('Save')")
    page.wait_for_selector(".views a[aria-current]:has-text('the dead')")
    seen.inspect("tasks-view")
    page.click("a.drop")
    page.click("dialog button:has-text('Remove')")
    page.wait_for_selector("[data-note]:has-text('Removed')")

    assert page.locator(".views").count() == 0


def test_the_keyboard_moves_and_opens(seen):
    page = seen.open("/ops/tasks?limit=50")
    page.wait_for_selector("[data-rows]")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.locator("tr.here").count() == 1
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#task")
    page.keyboard.press("g")
    page.keyboard.press("o")
    page.wait_for_url("**/ops")


def test_a_task_has_its_timeline_attempts_and_payload(seen, site):
    _, tasks, _ = site
    page = seen.open(f"/ops/tasks/{tasks['retried']}")
    assert page.locator(".attempts li").count() == 2
    assert page.locator(".stretch.waiting").count() == 1
    seen.inspect("task-retried")
    seen.open(f"/ops/tasks/{tasks['dead']}")
    page.click("text=Show")
    page.wait_for_selector("#payload pre:has-text('onerror')")
    seen.inspect("task-dead")
    seen.open(f"/ops/tasks/{tasks['runs']}")
    page.wait_for_selector("progress")
    first = page.locator("progress").get_attribute("value")
    eventually(lambda: page.locator("progress").get_attribute("value") != first, 20)
    seen.inspect("task-running")


def test_an_act_shows_what_it_will_do_and_is_audited(seen, site):
    _, tasks, client = site
    page = seen.open(f"/ops/tasks/{tasks['later']}")
    page.click("text=Cancel")
    page.wait_for_selector("dialog[open] .reach:has-text('1 task')")
    seen.inspect("act")
    page.click("dialog[open] a:has-text('Leave it')")
    assert client.get(f"/v1/tasks/{tasks['later']}").json()["state"] == "DELAYED"
    page.click("text=Cancel")
    page.click("dialog[open] button:has-text('Cancel the task')")
    page.wait_for_selector("[data-note]:has-text('cancelled')")

    assert client.get(f"/v1/tasks/{tasks['later']}").json()["state"] == "CANCELLED"
    entry = next(
        each for each in client.get("/v1/audit?verb=cancelTask").json()["items"] if each["target"] == tasks["later"]
    )
    assert (entry["principal"], entry["result"], entry["details"]) == ("night-shift", "ok", {"via": "console"})


def test_a_wait_is_ended_and_a_dead_letter_redriven_and_discarded(seen, site):
    _, tasks, client = site
    page = seen.open(f"/ops/tasks/{tasks['later-too']}")
    page.click("text=Run now")
    page.click("dialog[open] button:has-text('Send it now')")
    page.wait_for_selector("[data-note]")
    eventually(lambda: client.get(f"/v1/tasks/{tasks['later-too']}").json()["state"] == "SUCCEEDED", 20)
    page.wait_for_selector(".state-succeeded")  # by itself
    seen.open(f"/ops/tasks/{tasks['dead-too']}")
    page.click("text=Redrive")
    page.click("dialog[open] button:has-text('Redrive')")
    page.wait_for_selector("[data-note]:has-text('on its way again')")
    eventually(lambda: client.get(f"/v1/tasks/{tasks['dead-too']}").json()["state"] == "DEAD_LETTERED", 20)
    seen.open(f"/ops/tasks/{tasks['dead-too']}")
    page.click("text=Discard")
    page.click("dialog[open] button:has-text('Discard for good')")
    page.wait_for_selector("[data-note]:has-text('discarded')")


def test_the_pages_are_fit_to_be_seen_in_the_dark(browser, site):
    with visiting(browser, site[0], scheme="dark") as seen:
        seen.sign_in(ADMIN)
        for name, path in {"overview": "/ops", "tasks": "/ops/tasks", "task": f"/ops/tasks/{site[1]['dead']}"}.items():
            seen.open(path).wait_for_selector("#main section, #main table, #task")
            seen.inspect(f"dark-{name}")
