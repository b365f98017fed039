"""Every operation of the API has a verb, whose request is as the OpenAPI document has it; so are the fake's responses."""

import asyncio
import dataclasses
import datetime as dt
import inspect
import json
import re
from urllib.parse import parse_qsl

import jsonschema
import pytest

import tasks
from dispatch import tasktypes
from dispatch.gateway import application
from dispatch.gateway.contract import openapi
from robot_dispatch_client import AsyncClient, Client, Submission
from robot_dispatch_client.aio import AsyncSchedules
from robot_dispatch_client.client import Schedules
from robot_dispatch_client.testing import FakeDispatch
from robot_dispatch_client.verbs import PagedVerb, Verb
from support.cases import each

#: Operations without a verb, and why. A new operation gets a verb in `clients/python`, or a line here.
WITHOUT_A_VERB = {
    "callBack": "a vendor calls its whole URL, without a key",
    "isAlive": "for probes",
    "isReady": "for probes: its 503 is an answer, which a verb would repeat",
    "scrape": "for Prometheus",
    "getHome": "for people",
    "listProblems": "for people: the client has a class for each",
    "getProblem": "for people: the client has a class for each",
    "getOpenApi": "for generators of clients",
    "getDocs": "for people",
}

AT = dt.datetime(2030, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1)))
ECHO = {"message": "hi"}
REFUSED = {"message": "no", "permanent": True}
OPTIONS = {
    "idempotency_key": "k-1", "labels": {"robot": "r-7"}, "run_at": AT, "deadline": 60, "concurrency_key": "r-7",
    "webhook": {"url": "https://shop.example/robots", "events": ["task.failed"]},
    "request_id": "rq-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
}  # fmt: skip
LETTERS = {"type": "echo", "error_type": "echo-refused", "fingerprint": "0123456789abcdef"}
TASKS = {
    "status": "FAIL", "state": "DEAD_LETTERED", "type": "echo", "error_type": "echo-refused", "labels": {"robot": "r-7"},
    "since": AT, "until": AT, "principal": "shop",
}  # fmt: skip
SCHEDULE = {
    "timezone": "Europe/Berlin", "overlap": "queue", "catch_up": "none", "jitter": 5, "labels": {"robot": "r-7"},
    "deadline": 60, "paused": True,
}  # fmt: skip


@dataclasses.dataclass
class Ids:
    """What there is in the fake."""

    dead: str
    other: str
    third: str
    ended: str
    waits: str


def uses(ids):
    """Each verb with all of its arguments, in an order in which the fake has what they are about."""
    return {
        "submit": lambda c: [c.submit("echo", ECHO, **OPTIONS), c.submit("echo", ECHO, delay=dt.timedelta(minutes=1))],
        "submit_many": lambda c: [c.submit_many([Submission(type="echo", payload=ECHO), Submission(type="none", payload={})])],
        "get": lambda c: [c.get(ids.ended)],
        "wait": lambda c: [c.wait(ids.dead, timeout=1)],
        "events": lambda c: [c.events(ids.ended)],
        "payload": lambda c: [c.payload(ids.ended)],
        "children": lambda c: [c.children(ids.ended, page_size=2)],
        "list": lambda c: [c.list(**TASKS, request_id="rq-1", page_size=2), c.list()],
        "retry_now": lambda c: [c.retry_now(ids.waits)],
        "cancel": lambda c: [c.cancel(ids.waits)],
        "signal": lambda c: [c.signal(ids.third, "go", {"by": "r-7"}, idempotency_key="k-2")],
        "redeliver_webhook": lambda c: [c.redeliver_webhook(ids.ended)],
        "dead_letters": lambda c: [c.dead_letters(page_size=2, **LETTERS), c.dead_letters()],
        "dead_letter": lambda c: [c.dead_letter(ids.dead)],
        "dead_letter_groups": lambda c: [c.dead_letter_groups(**LETTERS), c.dead_letter_groups()],
        "redrive": lambda c: [c.redrive(ids.dead, ECHO, fresh=True)],
        "discard": lambda c: [c.discard(ids.other)],
        "redrive_many": lambda c: [c.redrive_many(limit=5, rate_per_second=0.5, dry_run=True, **LETTERS), c.redrive_many()],
        "count_job": lambda c: [c.count_job("redrive", **TASKS)],
        "start_job": lambda c: [c.start_job("redrive", limit=5, rate_per_second=0.5, canary=True, **TASKS)],
        "jobs": lambda c: [c.jobs()],
        "job": lambda c: [c.job("JOB")],
        "wait_for_job": lambda c: [c.wait_for_job("JOB", timeout=1)],
        "stop_job": lambda c: [c.start_job("retry-now"), c.stop_job("JOB")],
        "pause": lambda c: [c.pause("type:echo", "maintenance", AT), c.pause("all", "maintenance")],
        "pauses": lambda c: [c.pauses()],
        "resume": lambda c: [c.resume("all")],
        "keys": lambda c: [c.keys()],
        "key": lambda c: [c.key("local:r-9")],
        "audit": lambda c: [c.audit(verb="pauseTasks", principal="local", page_size=2), c.audit()],
        "task_types": lambda c: [c.task_types()],
        "task_type": lambda c: [c.task_type("echo")],
        "queues": lambda c: [c.queues()],
        "queue": lambda c: [c.queue("robot.task.q")],
        "workers": lambda c: [c.workers()],
        "stats": lambda c: [c.stats("*")],
        "request": lambda c: [c.request("GET", "/v1/tasks", params={"limit": 1})],
        "schedules.put": lambda c: [
            c.schedules.put("nightly", "echo", ECHO, "0 3 * * *", **SCHEDULE, create_only=True),
            c.schedules.put("nightly", "echo", ECHO, "0 4 * * *", revision=1),
        ],
        "schedules.all": lambda c: [c.schedules.all("*")],
        "schedules.get": lambda c: [c.schedules.get("nightly")],
        "schedules.pause": lambda c: [c.schedules.pause("nightly")],
        "schedules.resume": lambda c: [c.schedules.resume("nightly")],
        "schedules.run_now": lambda c: [c.schedules.run_now("nightly", idempotency_key="k-3")],
        "schedules.delete": lambda c: [c.schedules.delete("nightly")],
    }  # fmt: skip


class Recording(FakeDispatch):
    """A fake that keeps its responses; of two clients one has the same as the other."""

    def __init__(self):
        super().__init__(types=["echo", "http.request", "robot.clean"])
        self.pairs = []

    def _respond(self, request):
        # The id of a job is only there once it is.
        if "JOB" in request.url.path and self.jobs:
            path = request.url.raw_path.decode().replace("JOB", next(reversed(self.jobs)))
            request.url = request.url.copy_with(raw_path=path.encode())
        response = super()._respond(request)
        self.pairs.append((request, response))
        return response


def filled(fake):
    """A fake with something for every verb."""
    with fake.client() as client:
        options = {"webhook": "https://shop.example/robots", "concurrency_key": "r-9"}
        made = [client.submit("echo", REFUSED) for _ in range(2)] + [
            client.submit("echo", ECHO, **options) for _ in range(3)
        ]
        ids = Ids(*[task.task_id for task in made])
    for dead in (ids.dead, ids.other):
        fake.fail(dead, "echo-refused", "no")
    fake.succeed(ids.ended, {"message": "hi"})
    fake.progress(ids.third, 50, "half")
    fake.wait_for_retry(ids.waits)
    fake.pairs.clear()
    return ids


def used(kind):
    """What all verbs sent and got, by verb."""
    fake = Recording()
    ids = filled(fake)
    pairs = {}

    async def finish(found):
        return [each async for each in found] if inspect.isasyncgen(found) else await found

    async def in_loop(use):
        async with fake.async_client() as client:
            for found in use(client):
                await finish(found)

    for name, use in uses(ids).items():
        if kind == "sync":
            with fake.client() as client:
                for found in use(client):
                    if inspect.isgenerator(found):
                        list(found)
        else:
            asyncio.run(in_loop(use))
        pairs[name], fake.pairs = fake.pairs, []
    return pairs


@pytest.fixture(scope="module")
def document():
    return openapi.document(application.operations(), tasktypes.load(tasks))


@pytest.fixture(scope="module")
def sync_pairs():
    return used("sync")


class Contract:
    """The document, as far as requests and responses are compared with it."""

    def __init__(self, document):
        self.document = document
        self.operations = [
            (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operation)
            for path, methods in sorted(document["paths"].items(), key=lambda each: each[0].count("{"))
            for method, operation in methods.items()
        ]

    def operation(self, request):
        path = request.url.raw_path.decode().partition("?")[0]
        found = [
            one for method, pattern, one in self.operations if method == request.method and pattern.fullmatch(path)
        ]
        return found[0]

    def check(self, value, schema):
        whole = {**schema, "components": self.document["components"]}
        found = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(whole).iter_errors(value))

        assert found is None, f"{found.json_path}: {found.message}"

    def check_request(self, request):
        operation = self.operation(request)
        known = {
            (one["in"], one["name"].lower())
            for one in (self.resolved(each) for each in operation.get("parameters", []))
        }
        query = {("query", name.lower()) for name, _ in parse_qsl(request.url.query.decode())}
        ours = {
            "if-match",
            "if-none-match",
            "idempotency-key",
            "prefer",
            "last-event-id",
            "x-request-id",
            "traceparent",
        }
        headers = {("header", name.lower()) for name in request.headers if name.lower() in ours}

        assert query | headers <= known, operation["operationId"]
        if request.content:
            self.check(json.loads(request.content), operation["requestBody"]["content"]["application/json"]["schema"])

    def check_response(self, request, response):
        operation = self.operation(request)
        answers = operation["responses"]
        described = self.resolved(answers[str(response.status_code)])

        assert response.status_code < 400, operation["operationId"]
        if response.content:
            self.check(json.loads(response.content), described["content"]["application/json"]["schema"])

    def resolved(self, node):
        return (
            self.document["components"][node["$ref"].split("/")[2]][node["$ref"].split("/")[3]]
            if "$ref" in node
            else node
        )


@pytest.fixture(scope="module")
def contract(document):
    return Contract(document)


def verbs_of(kind):
    return {
        name: found for name in dir(kind)
        if not name.startswith("_") and isinstance(found := inspect.getattr_static(kind, name), Verb | PagedVerb)
    }  # fmt: skip


def test_every_operation_has_a_verb_or_a_reason_for_none(contract, sync_pairs):
    known = {operation["operationId"] for _, _, operation in contract.operations}
    reached = {contract.operation(request)["operationId"] for pairs in sync_pairs.values() for request, _ in pairs}

    assert known - reached == WITHOUT_A_VERB.keys()


def test_every_verb_is_used_here():
    named = {*verbs_of(Client), *(f"schedules.{name}" for name in verbs_of(Schedules))}

    assert named == uses(Ids("", "", "", "", "")).keys()


def test_both_clients_have_the_very_same_verbs():
    assert verbs_of(AsyncClient) == verbs_of(Client)
    assert verbs_of(AsyncSchedules) == verbs_of(Schedules)
    own = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert own == [{"close", "stream", "schedules"}, {"aclose", "stream", "schedules"}]
    assert inspect.signature(Client.stream).parameters == inspect.signature(AsyncClient.stream).parameters


@each("name", [*uses(Ids("", "", "", "", ""))])
def test_a_verb_sends_what_the_document_has(name, contract, sync_pairs):
    for request, _ in sync_pairs[name]:
        contract.check_request(request)


@each("name", [*uses(Ids("", "", "", "", ""))])
def test_the_fake_answers_as_the_document_has_it(name, contract, sync_pairs):
    assert sync_pairs[name]
    for request, response in sync_pairs[name]:
        contract.check_response(request, response)


def test_both_clients_send_the_same(sync_pairs):
    in_loop = used("async")

    def sent(pairs):
        ids = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}")
        return {
            name: [(each.method, ids.sub("…", str(each.url)), ids.sub("…", each.content.decode())) for each, _ in found]
            for name, found in pairs.items()
        }

    assert sent(in_loop) == sent(sync_pairs)


def test_a_verb_shows_its_documentation_and_its_arguments():
    with FakeDispatch().client() as client:
        assert client.get.__doc__ == Client.get.__doc__ == "A task as it is now."
        assert list(inspect.signature(client.redrive).parameters) == ["task", "payload", "fresh"]
        assert list(inspect.signature(Client.redrive).parameters) == ["self", "task", "payload", "fresh"]
        assert Client.stats(client).counted == 0
    assert inspect.iscoroutinefunction(FakeDispatch().async_client().get)
