"""A vendor outage from the first dead letter to the audit log, by the command line and by the Python client.

The console's walk is tests/integration/console/test_console_walk.py; docs/how-to/recover-from-an-outage.md shows both of these.
"""

import dataclasses
import json

import httpx
import pytest

from robot_dispatch_client import Client, State
from support import processes
from support import stack as stacks
from support.waiting import eventually

SETTINGS = {
    "ladder": "1m=0.5,5m=0.5,30m=0.5", "robot_poll": 0.2, "lease": 3, "soft_shutdown": 3, "callback_secrets": "s" * 32,
}  # fmt: skip

#: Orders that die of the outage, and the one that the vendor refuses whatever its state.
ROBOTS = [f"SN-{number}" for number in range(1, 7)]
REFUSED = "SN-REFUSE"

#: Redrives a second.
RATE = 2

CAUSE = "upstream-unavailable"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack():
    with stacks.running("servers,simulator,worker,gateway", **SETTINGS) as stack:
        yield stack


@dataclasses.dataclass(frozen=True)
class Outage:
    """A vendor that answers 503, and what died of it."""

    vendor: httpx.Client
    walk: str  #: the label of its orders

    def begin(self):
        """Every order is answered with 503."""
        self.vendor.post("/control/faults", json={"match": "orders", "status": 503, "times": None}).raise_for_status()

    def end(self):
        """The vendor is back."""
        self.vendor.delete("/control/faults").raise_for_status()


@pytest.fixture
def outage(stack, request):
    """Orders as they have died in an outage that goes on."""
    with (
        httpx.Client(base_url=stack.env["ROBOT_API_URL"], timeout=30) as vendor,
        Client(stack.env["DISPATCH_HTTP_URL"]) as api,
    ):
        made = Outage(vendor, request.node.name.rpartition("_")[2])
        order(api, made, [REFUSED])
        eventually(lambda: api.dead_letter_groups(error_type="upstream-rejected"), 30)
        made.begin()
        order(api, made, ROBOTS)
        everywhere(api, made, State.DEAD_LETTERED)
        yield made
        made.end()
        for letter in api.dead_letters():
            api.discard(letter.task_id)


def order(api, outage, robots):
    for robot in robots:
        api.submit("robot.clean", {"robot": robot, "areas": ["lobby"]}, labels={"walk": outage.walk})


def everywhere(api, outage, state):
    """Every order of the walk is in a state."""

    def states():
        return [task.state for task in api.list(labels={"walk": outage.walk})]

    eventually(lambda: states() == [state] * (len(ROBOTS) + 1), 60, lambda: str(states()))


@pytest.fixture
def celery(stack):
    """Runs ``celery -A celery_app …`` to its end; its output."""
    exported = {name: value for name, value in stack.env.items() if name.startswith("DISPATCH_")}

    def run(*words, expect=0):
        done = processes.run("celery", ["-A", "celery_app", *words], environ={**stack.environ, **exported}, timeout=120)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout

    return run


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_an_outage_by_commands(stack, outage, celery, tmp_path):
    group = commands_find_and_group(celery, outage)
    chosen = (*options_of(group), "--label", f"walk={outage.walk}", "--as", "ada")
    commands_try_a_canary_while_the_vendor_is_down(celery, chosen)
    outage.end()
    commands_redrive_at_a_rate(celery, chosen)
    commands_mend_one(celery, tmp_path)
    with Client(stack.env["DISPATCH_HTTP_URL"]) as api:
        everywhere(api, outage, State.SUCCEEDED)
    listed = lines(celery("tasks", "list", "--label", f"walk={outage.walk}", "--state", "SUCCEEDED", "--json"))
    assert {task["cycle"] for task in listed} == {1, 2}
    assert "no dead letters" in celery("dlq", "groups")
    commands_audit(celery)


def options_of(group):
    """The options that choose a group: another error may have a message of the same form."""
    given = {"--type": group["type"], "--error-type": group["errorType"], "--fingerprint": group["fingerprint"]}
    return [word for pair in given.items() for word in pair]


def commands_find_and_group(celery, outage):
    counted = json.loads(celery("tasks", "stats", "--json"))
    assert {CAUSE: len(ROBOTS), "upstream-rejected": 1} == {
        each["errorType"]: each["count"] for each in counted["deadLetters"]
    }
    groups = lines(celery("dlq", "groups", "--json"))
    assert [(group["errorType"], group["count"]) for group in groups] == [
        (CAUSE, len(ROBOTS)),
        ("upstream-rejected", 1),
    ]
    shown = celery("tasks", "show", groups[0]["exampleTaskId"])
    assert "DEAD_LETTERED" in shown
    assert outage.walk in shown
    return groups[0]


def commands_try_a_canary_while_the_vendor_is_down(celery, chosen):
    assert celery("jobs", "start", "redrive", *chosen, "--dry-run") == f"{len(ROBOTS)} tasks would be taken\n"
    failed = celery("jobs", "start", "redrive", *chosen, "--canary", "--rate", str(RATE), "--yes", "--watch", expect=1)
    last = failed.splitlines()[-1]
    assert last.startswith(f"stopped (canary-failed): 1 of {len(ROBOTS)} done, 0 failed"), failed

    def dead():
        return len(lines(celery("dlq", "list", "--error-type", CAUSE, "--json"))) == len(ROBOTS)

    eventually(dead, 60, "the canary is a dead letter again")


def commands_redrive_at_a_rate(celery, chosen):
    went = celery("jobs", "start", "redrive", *chosen, "--canary", "--rate", str(RATE), "--yes", "--watch").splitlines()
    assert went[0].startswith("job ")
    assert any(f"of {len(ROBOTS)} done, 0 failed, 0 passed over, " in line for line in went), went
    assert went[-1] == f"done: {len(ROBOTS)} of {len(ROBOTS)} done, 0 failed, 0 passed over; at most 1000"
    (job,) = [each for each in json.loads(celery("jobs", "list", "--json")) if each["state"] == "done"]
    assert (job["canary"], job["ratePerSecond"], job["left"]) == (True, RATE, 0)
    assert job["jobId"] in went[0]


def commands_mend_one(celery, tmp_path):
    (letter,) = lines(celery("dlq", "list", "--error-type", "upstream-rejected", "--json"))
    payload = json.loads(celery("tasks", "show", letter["taskId"], "--payload", "--json", "--as", "ada"))["payload"]
    assert payload["robot"] == REFUSED
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps({**payload, "robot": "SN-7"}))
    sent = lines(celery("dlq", "--as", "ada", "redrive", letter["taskId"], "--payload", str(mended), "--json"))
    assert [(one["outcome"], one["cycle"]) for one in sent] == [("sent", 1)]


def commands_audit(celery):
    entries = lines(celery("audit", "--json"))
    assert all(entry["principal"].endswith("/ada") for entry in entries)
    assert [(entry["verb"], entry["phase"], entry["result"]) for entry in reversed(entries)] == [
        ("startJob", "begin", "ok"), ("startJob", "end", "canary-failed"),
        ("startJob", "begin", "ok"), ("startJob", "end", "ok"),
        ("getTaskPayload", None, "ok"), ("redriveDeadLetter", None, "ok"),
    ]  # fmt: skip
    assert entries[0]["details"]["payloadEdited"] is True


def test_an_outage_by_client(stack, outage):
    with Client(stack.env["DISPATCH_HTTP_URL"]) as api:
        before = {entry.id for entry in api.audit()}
        group = client_finds_and_groups(api, outage)
        chosen = {**group.filter.model_dump(), "labels": {"walk": outage.walk}}
        client_tries_a_canary_while_the_vendor_is_down(api, chosen)
        outage.end()
        client_redrives_at_a_rate(api, chosen)
        client_mends_one(api)
        everywhere(api, outage, State.SUCCEEDED)
        assert api.dead_letter_groups() == []
        client_audits(api, before)


def client_finds_and_groups(api, outage):
    eventually(lambda: api.queue("robot.task.dlq").ready == len(ROBOTS) + 1, 30, "RabbitMQ counts them")
    groups = api.dead_letter_groups()
    assert [(group.error_type, group.count) for group in groups] == [(CAUSE, len(ROBOTS)), ("upstream-rejected", 1)]
    example = api.get(groups[0].example_task_id)
    assert (example.state, example.labels) == (State.DEAD_LETTERED, {"walk": outage.walk})
    assert [hop.kind for hop in api.events(example)].count("failed") == 4
    return groups[0]


def client_tries_a_canary_while_the_vendor_is_down(api, chosen):
    assert api.count_job("redrive", **chosen).matched == len(ROBOTS)
    job = api.start_job("redrive", rate_per_second=RATE, canary=True, **chosen)
    ended = api.wait_for_job(job, timeout=120)
    assert (ended.state, ended.reason, ended.done, ended.matched) == ("stopped", "canary-failed", 1, len(ROBOTS))
    again = api.wait(ended.canary_task_id, timeout=120)
    assert (again.state, again.cycle) == (State.DEAD_LETTERED, 1)


def client_redrives_at_a_rate(api, chosen):
    job = api.start_job("redrive", rate_per_second=RATE, canary=True, **chosen)
    seen = []
    eventually(lambda: seen.append(api.job(job)) or seen[-1].ended, 60, "the job has ended")
    last = seen[-1]
    assert (last.state, last.done, last.failed, last.left) == ("done", len(ROBOTS), 0, 0)
    assert (last.finished_at - last.created_at).total_seconds() >= (len(ROBOTS) - 1) / RATE
    assert any(not each.ended and each.matched == len(ROBOTS) and each.left for each in seen)  # on its way


def client_mends_one(api):
    (letter,) = api.dead_letters(error_type="upstream-rejected")
    payload = api.dead_letter(letter.task_id).payload
    assert payload["robot"] == REFUSED
    sent = api.redrive(letter.task_id, {**payload, "robot": "SN-8"})
    assert (sent.cycle, sent.done) == (1, False)
    assert api.wait(sent, timeout=120).result["robot"] == "SN-8"


def client_audits(api, before):
    entries = [entry for entry in api.audit() if entry.id not in before]
    assert [(entry.verb, entry.phase, entry.result) for entry in reversed(entries)] == [
        ("startJob", None, "ok"),  # the count
        ("startJob", "begin", "ok"), ("startJob", "end", "canary-failed"),
        ("startJob", "begin", "ok"), ("startJob", "end", "ok"),
        ("redriveDeadLetter", None, "ok"),
    ]  # fmt: skip
