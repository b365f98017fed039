"""What operators do to many tasks, in a browser on a real system: from an outage to its end."""

import re

from support.console import ADMIN, visiting
from support.waiting import eventually

#: Dead letters of the outage.
OUTAGE = 12

SECRET = "Bearer not-for-operators"


def submit(client, type_, payload, **options):
    answer = client.post("/v1/tasks", json={"type": type_, "payload": payload, "options": options})
    assert answer.status_code == 202, answer.text
    return answer.json()["taskId"]


def refused(seen):
    """A form that came back with its errors: Chromium's console has a line for the status, and nothing else."""
    assert all("status of 422" in each for each in seen.errors)
    seen.errors.clear()


def state(client, task_id):
    return client.get(f"/v1/tasks/{task_id}").json()["state"]


def dead(client, number):
    eventually(lambda: len(client.get("/v1/dead-letters?limit=100").json()["items"]) == number, 60)


def test_the_pages_are_empty_before_anything_has_happened(seen):
    for name, path in {"letters": "dead-letters", "jobs": "jobs", "pauses": "pauses", "schedules": "schedules"}.items():
        page = seen.open(f"/ops/{path}")
        assert page.locator(".blank").first.is_visible(), name
        seen.inspect(f"empty-{name}")


def test_from_an_outage_to_its_end(seen, system):
    _, client = system
    _outage(client)
    named_on_the_overview(seen)
    found_and_grouped(seen)
    mended_and_sent(seen, client)
    some_selected(seen, client)
    a_canary_that_fails(seen)
    at_a_rate_to_the_end(seen, client)
    discarded(seen, client)
    audited(seen, client)


def _outage(client):
    for number in range(OUTAGE):
        submit(client, "echo", {"message": f"order {number}", "permanent": True})
    submit(
        client, "http.request", {"method": "POST", "url": "http://robots.example/orders", "headers": {"Authorization": SECRET}, "json": {"a": 1}}
    )  # fmt: skip
    dead(client, OUTAGE + 1)


def named_on_the_overview(seen):
    page = seen.open("/ops")
    page.wait_for_selector(".concerns .bad:has-text('attempts of the last five minutes failed')", timeout=60_000)
    seen.inspect("outage")
    page.click(".concerns a:has-text('dead letters wait')")
    page.wait_for_url("**/ops/dead-letters")


def found_and_grouped(seen):
    page = seen.open("/ops/dead-letters")
    row = page.locator("tr", has_text="echo-refused")
    assert row.locator(".num").inner_text().strip() == str(OUTAGE)
    seen.inspect("letters-groups")
    row.locator("th a").click()
    page.wait_for_url("**/ops/dead-letters/list?type=echo*")
    assert page.locator("tbody tr").count() == OUTAGE
    page.check("[data-all]")
    assert page.locator("tbody input:checked").count() == OUTAGE
    page.uncheck("[data-all]")
    seen.inspect("letters-list")


def mended_and_sent(seen, client):
    page = seen.page
    page.locator("tbody th a").first.click()
    page.wait_for_selector("text=configured to fail permanently")
    chosen = page.locator("h1 code").inner_text()
    seen.inspect("letter")
    page.click("text=Mend and send")
    page.select_option("[name='p:/permanent']", "false")
    page.fill("[name='p:/sleepSeconds']", "long")
    page.click("button:has-text('Send 1 task')")
    page.wait_for_selector("[id='i/sleepSeconds-error']")
    refused(seen)
    seen.inspect("letter-mend-wrong")
    page.fill("[name='p:/sleepSeconds']", "")
    page.click("button:has-text('Send 1 task')")
    page.wait_for_selector("[data-note]:has-text('mended payload')")
    eventually(lambda: state(client, chosen) == "SUCCEEDED", 30)

    # A secret is neither shown nor lost.
    secretive = client.get("/v1/dead-letters?type=http.request").json()["items"][0]["taskId"]
    seen.open(f"/ops/dead-letters/{secretive}/mend")
    assert "not-for-operators" not in page.content()
    seen.inspect("letter-mend")
    page.click("text=as JSON")
    page.wait_for_selector("#json")
    assert "[secret]" in page.locator("#json").input_value()
    seen.inspect("letter-mend-json")


def some_selected(seen, client):
    page = seen.open("/ops/dead-letters/list?type=echo")
    for box in page.locator("tbody input").all()[:2]:
        box.check()
    page.click("button:has-text('Redrive selected')")
    page.wait_for_selector(".reach:has-text('2 tasks')")
    seen.inspect("letters-selected")
    page.click("button:has-text('Redrive 2')")
    page.wait_for_selector("[data-note]:has-text('2 dead letters were sent again')")
    dead(client, OUTAGE)  # each of them dies again, as nothing was mended


def a_canary_that_fails(seen):
    page = seen.page
    page.locator("tr", has_text="echo-refused").locator("text=Redrive").click()
    page.wait_for_selector(f"dialog[open] .reach:has-text('{OUTAGE - 1} tasks')")
    seen.inspect("job-ask")
    page.click(f"dialog[open] button:has-text('Redrive {OUTAGE - 1}')")
    page.wait_for_selector(".badge.job-stopped:has-text('stopped')")  # by itself
    page.wait_for_selector("text=The first task failed again")
    seen.inspect("job-canary-failed")


def at_a_rate_to_the_end(seen, client):
    page = seen.open("/ops/dead-letters")
    page.locator("tr", has_text="echo-refused").locator("text=Redrive").click()
    page.fill("dialog[open] [name=rate]", "4")
    page.uncheck("dialog[open] [name=canary]")
    page.click("dialog[open] button:has-text('Redrive')")
    page.wait_for_selector("#job progress")
    seen.inspect("job-running")
    page.wait_for_selector(".badge.job-done")
    assert page.locator(".stat:has-text('done') dd").inner_text() == str(OUTAGE - 1)
    seen.inspect("job-done")
    seen.open("/ops/jobs")
    assert page.locator("tbody tr").count() == 2
    seen.inspect("jobs")
    dead(client, OUTAGE)


def discarded(seen, client):
    page = seen.open("/ops/dead-letters")
    page.locator("tr", has_text="echo-refused").locator("text=Discard").click()
    page.click("dialog[open] button:has-text('Discard')")
    page.wait_for_selector(".badge.job-done")
    dead(client, 1)
    seen.open(f"/ops/dead-letters/{client.get('/v1/dead-letters').json()['items'][0]['taskId']}")
    page.click("text=Discard")
    page.click("dialog[open] button:has-text('Discard for good')")
    page.wait_for_selector("[data-note]:has-text('discarded')")


def audited(seen, client):
    page = seen.open("/ops/audit")
    page.wait_for_selector("[data-rows]")
    seen.inspect("audit")
    page.fill("#f-verb", "startJob")
    page.click("button:has-text('Find')")
    page.wait_for_url("**/ops/audit?verb=startJob")
    texts = page.locator("tbody tr").all_inner_texts()
    assert sum("begin" in text for text in texts) == 3
    verbs = {
        entry["verb"] for entry in client.get("/v1/audit?limit=100").json()["items"] if entry["details"].get("via")
    }
    assert {"redriveDeadLetter", "redriveDeadLetters", "startJob", "discardDeadLetter"} <= verbs


def test_everything_is_acted_on_only_with_its_count(seen, system):
    _, client = system
    submit(client, "echo", {"message": "x", "permanent": True})
    dead(client, 1)
    before = len(client.get("/v1/jobs").json()["items"])
    page = seen.open("/ops/dead-letters")
    page.click("text=Redrive everything")
    page.wait_for_selector("dialog[open] [name=confirm]")
    page.fill("dialog[open] [name=confirm]", "2")
    seen.inspect("job-everything")
    page.click("dialog[open] button:has-text('Redrive 1')")
    page.wait_for_selector("h1:has-text('not valid')")
    refused(seen)
    assert len(client.get("/v1/jobs").json()["items"]) == before
    seen.open("/ops/jobs/start?verb=cancel")
    page.wait_for_selector(".refusal:has-text('choose a filter')")


def test_a_job_is_started_from_a_filter_and_stopped(seen, system):
    _, client = system
    for _ in range(3):
        submit(client, "echo", {"message": "later"}, delaySeconds=1_800, labels={"walk": "jobs"})
    page = seen.open("/ops/jobs/new")
    seen.inspect("job-new")
    page.select_option("#verb", "cancel")
    page.fill("#label", "walk=jobs")
    page.click("button:has-text('Count them')")
    page.wait_for_selector(".reach:has-text('3 tasks')")
    seen.inspect("job-ask-page")
    page.fill("[name=rate]", "0.1")
    page.click("button:has-text('Cancel 3')")
    page.wait_for_selector("#job")
    eventually(lambda: client.get("/v1/jobs").json()["items"][0]["matched"] == 3, 30, "a worker has begun it")
    page.click("a:has-text('Stop')")
    page.click("dialog[open] button:has-text('Stop the job')")
    page.wait_for_selector("[data-note]:has-text('stopped')")
    job = client.get("/v1/jobs").json()["items"][0]

    assert (job["state"], job["reason"], job["matched"]) == ("stopped", "requested", 3)
    assert job["done"] < 3


def test_a_schedule_from_its_form_to_its_end(seen, system):
    _, client = system
    page = seen.open("/ops/schedules")
    page.click("text=New schedule")
    page.wait_for_selector(".choices")
    seen.inspect("schedule-type")
    page.click(".choices a:has-text('robot.clean')")
    page.fill("#s-name", "nightly-clean")
    page.fill("#s-cron", "0 3 * * *")
    page.fill("#s-zone", "Europe/Berlin")
    page.wait_for_selector("#runs li:nth-child(5)")  # before it is saved
    page.fill("[name='p:/robot']", "R-1")
    page.click("button:has-text('Add an item')")
    page.fill("[name='p:/areas/0']", "lobby")
    page.click("button:has-text('Add an item')")
    assert page.locator("[name='p:/areas/0']").input_value() == "lobby"
    page.fill("[name='p:/passes']", "9")
    page.click("button:has-text('Create the schedule')")
    page.wait_for_selector("[id='i/passes-error']")
    refused(seen)
    seen.inspect("schedule-form-wrong")
    page.fill("[name='p:/passes']", "2")
    page.click("button:has-text('Create the schedule')")
    page.wait_for_url("**/ops/schedules/nightly-clean")
    stored = client.get("/v1/schedules/nightly-clean").json()
    assert stored["payload"] == {"robot": "R-1", "areas": ["lobby"], "passes": 2}
    seen.inspect("schedule")
    page.click("text=Edit")
    page.fill("#s-cron", "30 4 * * *")
    page.click("button:has-text('Save the schedule')")
    page.wait_for_selector("[data-note]:has-text('saved')")
    assert client.get("/v1/schedules/nightly-clean").json()["cron"] == "30 4 * * *"
    for act, button in {"Pause": "Pause", "Resume": "Resume"}.items():
        page.click(f".headline a:has-text('{act}')")
        page.click(f"dialog[open] button:has-text('{button}')")
        page.wait_for_selector("[data-note]")
    seen.open("/ops/schedules")
    seen.inspect("schedules")
    seen.open("/ops/schedules/nightly-clean")
    page.click(".headline a:has-text('Run now')")
    page.click("dialog[open] button:has-text('Submit 1 task')")
    page.wait_for_url(re.compile("/ops/tasks/"))
    seen.open("/ops/schedules/nightly-clean")
    page.click(".headline a:has-text('Delete')")
    page.click("dialog[open] button:has-text('Delete for good')")
    page.wait_for_selector("[data-note]:has-text('deleted')")
    assert client.get("/v1/schedules/nightly-clean").status_code == 404


def submitted_and_held(client):
    """A task that is held; None where it ran, since its worker had not read the pause yet."""
    task_id = submit(client, "echo", {"message": "held"})
    eventually(lambda: state(client, task_id) in {"HELD", "SUCCEEDED"}, 30)
    return task_id if state(client, task_id) == "HELD" else None


def test_a_pause_with_its_reason_and_its_end(seen, system):
    _, client = system
    page = seen.open("/ops/pauses")
    page.fill("#name", "echo")
    page.click("button:has-text('Go on')")
    page.wait_for_selector("[name=reason]")
    page.fill("[name=reason]", "the vendor repairs its API")
    page.select_option("[name=minutes]", "60")
    page.click("button:has-text('Pause')")
    page.wait_for_selector("[data-note]:has-text('Paused')")
    held = eventually(lambda: submitted_and_held(client), 30, "a task is held")
    seen.open("/ops/pauses")
    page.wait_for_selector("text=the vendor repairs its API")
    seen.inspect("pauses")
    page.click("text=Resume")
    page.wait_for_selector("dialog[open] .reach:has-text('1 task')")
    page.click("dialog[open] button:has-text('Resume')")
    page.wait_for_selector("[data-note]:has-text('Resumed')")
    eventually(lambda: state(client, held) == "SUCCEEDED", 30)


def test_the_pages_are_fit_to_be_seen_in_the_dark_too(browser, system):
    with visiting(browser, system[0], scheme="dark") as seen:
        seen.sign_in(ADMIN)
        for name in ("dead-letters", "jobs", "audit", "schedules", "new-schedule/robot.clean"):
            seen.open(f"/ops/{name}").wait_for_selector("#main .list, #main .blank, #main form")
            seen.inspect(f"dark-{name.replace('/', '-')}")
