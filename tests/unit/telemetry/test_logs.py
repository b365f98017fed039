"""Log lines: JSON with component, event and task; what a payload's model calls secret is in none of them."""

import json
import logging
import re
import types

import pytest
import structlog
from celery.app.trace import LOG_SUCCESS

from dispatch.config import settings
from dispatch.errors import RetryableError
from dispatch.protocol.message import Message
from dispatch.protocol.retry import AttemptFailed
from dispatch.store.claims import Claims
from dispatch.store.scripts import RedisHandle
from dispatch.tasktypes.ladders import Ladders
from dispatch.tasktypes.payload import Payload, Secret, secrets_of
from dispatch.tasktypes.registry import TaskType
from dispatch.telemetry import logs, task_log
from dispatch.worker.outcomes import FENCE, OWNER, WIRE
from dispatch.worker.runner import Runner, call_handler
from support.cases import each
from support.context import FakeContext
from support.gateway_fakes import World, problem

SECRET = "hunter2-secret"
MESSAGE = Message(
    body=b"[]",
    headers={"id": "t-1", "task": "greet", "x-attempt": 2, "x-request-id": "rq-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
    content_type="application/json",
    content_encoding="utf-8",
)  # fmt: skip


class Login(Payload):
    token: Secret | None = None


class Order(Payload):
    name: str
    api_key: Secret
    logins: tuple[Login, ...] = ()


@pytest.fixture
def lines(capsys):
    root = logging.getLogger()
    before, level, process = list(root.handlers), root.level, dict(logs._process)
    logs.configure("test")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = before
    root.setLevel(level)
    logs._process.clear()
    logs._process.update(process)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_a_line_about_a_delivery_names_it_and_its_trace(lines):
    task_log(MESSAGE).warning("attempt failed", error="e")

    (line,) = lines()
    assert list(line)[:4] == ["time", "level", "event", "logger"]
    assert line["time"].endswith("Z")
    assert {name: line[name] for name in ("level", "event", "service", "task_id", "type", "attempt")} == {
        "level": "warning", "event": "attempt failed", "service": "test", "task_id": "t-1", "type": "greet", "attempt": 2,
    }  # fmt: skip
    assert (line["trace_id"], line["span_id"], line["request_id"]) == ("a" * 32, "b" * 16, "rq-1")


def test_a_librarys_line_looks_the_same_and_belongs_to_the_delivery(lines):
    logs.begin(MESSAGE)
    logging.getLogger("some.library").info("it took %d ms", 3)
    logs.clear()

    (line,) = lines()
    assert (line["event"], line["logger"], line["task_id"]) == ("it took 3 ms", "some.library", "t-1")


def test_celerys_lines_name_the_task_and_show_no_values(lines):
    data = {"id": "t-1", "name": "greet", "return_value": SECRET, "args": SECRET}
    logging.getLogger("celery.app.trace").info("Task %(name)s: %(return_value)s", data, extra={"data": data})

    (line,) = lines()
    assert (line["task_id"], line["type"], line["event"]) == ("t-1", "greet", "Task greet: …")
    assert SECRET not in str(line)


@each("level", ["info", "warning"])
def test_a_frequent_line_is_the_one_that_the_logger_writes(lines, level):
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, logs._Stderr)]
    logs.clear()  # what other tests have bound
    fields = {"path": "/v1/täsks", "status": 202, "ms": 1.5, "task_id": None, "principal": "ada"}
    logs.FrequentLine("dispatch.access", "request", level).write(fields)
    getattr(logs.logger("dispatch.access"), level)("request", **fields)
    frequent, usual = lines()
    times = [line.pop("time") for line in (frequent, usual)]

    assert list(frequent.items()) == list(usual.items())
    assert [bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", time)) for time in times] == [True, True]


def test_a_frequent_line_hides_secrets_and_keeps_to_the_level(lines):
    line = logs.FrequentLine("dispatch.task", "task succeeded")
    with logs.hiding(("rq-1",)):
        line.write(logs.task_fields(MESSAGE))
    logging.getLogger().setLevel(logging.WARNING)
    line.write(logs.task_fields(MESSAGE))

    (written,) = lines()
    assert (written["type"], written["request_id"]) == ("greet", "[secret]")


@each("level", [logging.INFO, logging.DEBUG])
def test_celerys_lines_about_what_one_line_of_ours_has_are_details(lines, level):
    logs.configure("test", level=level)
    failed = {"id": "t-1", "name": "greet", "description": "raised expected"}
    logging.getLogger("celery.app.trace").info("Task %(name)s %(description)s", failed)
    data = {"id": "t-1", "name": "greet", "return_value": "x", "runtime": 0.1}
    logging.getLogger("celery.app.trace").info(LOG_SUCCESS, data, extra={"data": data})
    logging.getLogger("celery.app.trace").info("Task %(name)s was retried", {"name": "greet"})
    logging.getLogger("celery.app.trace").warning("Task %(name)s is odd", {"name": "greet"})
    details = ["Task greet raised expected", "Task greet[t-1] succeeded in 0.1s: …"]

    shown = lines()
    assert {line["event"] for line in shown if line["level"] == "debug"} == (
        {*details} if level < logging.INFO else set()
    )
    assert [line["event"] for line in shown if line["level"] != "debug"] == [
        "Task greet was retried",
        "Task greet is odd",
    ]


def test_colours_stay_out_of_json(lines):
    logging.getLogger("werkzeug").info("\x1b[31m\x1b[1mGET /x\x1b[0m 404 [0m")

    assert lines()[0]["event"] == "GET /x 404 [0m"


def test_a_traceback_stays_on_its_line(lines):
    try:
        int("no")
    except ValueError:
        logging.getLogger("some.library").exception("failed")

    assert "ValueError: invalid literal" in lines()[0]["exception"]


def test_a_long_field_keeps_its_beginning_and_its_end(lines):
    logs.logger("dispatch.x").warning("began " + "x" * 10**6 + " ended")

    (line,) = lines()
    assert len(line["event"]) < 1.01 * logs.LONGEST
    assert (line["event"][:6], line["event"][-6:]) == ("began ", " ended")


def test_the_secrets_of_a_payload_are_found_wherever_they_are():
    payload = {"name": "n", "apiKey": "first", "api_key": "by name", "logins": [{"token": "second"}, {"token": None}]}

    assert set(secrets_of(Order, payload)) == {"first", "second", "by name"}
    assert secrets_of(Order, {"name": 3, "apiKey": ["odd"], "logins": "x"}) == ("odd",)
    assert secrets_of(Order, None) == ()


def test_a_secret_travels_to_the_handler():
    order = Order.model_validate_json(json.dumps({"name": "n", "apiKey": SECRET}))

    assert order.model_dump(mode="json", by_alias=True, exclude_unset=True) == {"name": "n", "apiKey": SECRET}
    assert SECRET not in repr(order)


def test_no_line_and_no_failure_shows_a_secret(lines):
    def handler(order, ctx):
        ctx.log.warning("calling", url=f"https://x/?key={order.api_key.get_secret_value()}", deep={"a": [SECRET]})
        logging.getLogger("some.library").warning("sent %s", SECRET)
        raise RetryableError(f"refused {SECRET}", type=SECRET)

    logs.configure("test", level=logging.DEBUG)
    context = FakeContext()
    context.log = task_log(MESSAGE)
    kind = TaskType("greet", Order, handler, None, 1.0, "")
    payload = {"name": "n", "apiKey": SECRET}
    with pytest.raises(AttemptFailed) as caught, logs.hiding(secrets_of(Order, payload)):
        call_handler(kind, payload, context)

    written = lines()
    assert len(written) == 3
    assert SECRET not in str(written)
    assert caught.value.failure.message == f"refused {logs.REDACTED}"
    assert SECRET not in str(caught.value.args)
    assert caught.value.__suppress_context__  # its traceback goes to Flower


def test_one_secret_within_another_leaves_nothing_behind():
    assert logs.redact("abcdefgh abcd", ("abcd", "abcdefgh")) == f"{logs.REDACTED} {logs.REDACTED}"


def test_celerys_event_about_a_success_shows_no_secret(monkeypatch):
    request = {WIRE: MESSAGE, OWNER: "o", FENCE: "f"}
    loaded = settings.load({})
    claims = Claims(RedisHandle(loaded, timeout=1.0), loaded)
    runner = Runner(claims, Ladders(loaded.ladder), loaded.handlers())
    monkeypatch.setattr(runner, "_run", lambda *_: {"texts": [f"key {SECRET}"], "count": 1})
    kind = TaskType("greet", Order, lambda *_: None, None, 1.0, "")

    result = runner.run(kind, types.SimpleNamespace(get=request.get, hostname="w"), {"name": "n", "apiKey": SECRET})
    assert result == {"texts": [f"key {logs.REDACTED}"], "count": 1}


def test_a_problem_echoes_no_secret():
    client = World(types={"greet": TaskType("greet", Order, lambda *_: None, None, 1.0, "")}).client()
    answer = client.post("/v1/tasks", json={"type": "greet", "payload": {"name": 3, "apiKey": [SECRET]}})

    assert {"/payload/name", "/payload/apiKey"} == {
        e["pointer"] for e in problem(answer, 422, "validation-error")["errors"]
    }
    assert SECRET not in answer.text
