"""The Celery app as a client, and the message that `apply_async` makes for our publisher."""

import ast
import json
import types
from pathlib import Path

import celery
import pytest

import topology
from dispatch.broker import celery_client
from dispatch.broker.celery_producer import capturing, dispatch
from dispatch.broker.celery_task import DispatchTask, Refused
from dispatch.config.settings import load
from dispatch.errors import NotSent
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import TaskType
from support.cases import each
from support.unit_fakes import Failing

ROOT = Path(__file__).parents[3]
SETTINGS = load({
    "DISPATCH_BROKER_URL": "amqp://all@h/v",
    "DISPATCH_CONTROL_BROKER_URL": "amqp://control@h/v",
    "DISPATCH_WORKER_BROKER_URL": "amqp://worker@h/v",
})  # fmt: skip


class Greeting(Payload):
    message: str = "hi"


TYPES = {
    "greet": TaskType("greet", Greeting, lambda _order, _ctx: None, None, 300.0, "Greet."),
    "robot.tidy": TaskType("robot.tidy", Greeting, lambda _order, _ctx: None, ("5m",), 60.0, "Tidy up."),
}


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(celery_client.logs, "configure", lambda *_args, **_options: None)
    return celery_client.create(SETTINGS, TYPES, topology.broker_map(SETTINGS))


@pytest.fixture
def send():
    return Failing(result="sent")


def submit(app, send, payload=None):
    dispatch(app.tasks["greet"], payload or {"message": "ä"}, task_id="t-1", headers={"x-seq": 0}, send=send)
    return send.calls[0]


def test_every_task_type_is_a_celery_task(app):
    ours = {name: task.time_limit for name, task in app.tasks.items() if not name.startswith("celery.")}

    assert ours == {"greet": 300.0, "robot.tidy": 60.0}
    assert all(isinstance(app.tasks[name], DispatchTask) for name in TYPES)


def test_a_task_runs_in_a_worker_only(app):
    with pytest.raises(Refused, match="greet runs in a worker only"):
        app.tasks["greet"]({})


def test_a_worker_may_run_them(app):
    app.dispatch_run = lambda task_type, _request, payload: {"ran": task_type.name, **payload}

    assert app.tasks["robot.tidy"]({"message": "x"}) == {"ran": "robot.tidy", "message": "x"}


def test_commands_use_the_user_that_controls(app):
    assert app.conf.broker_url == "amqp://control@h/v"


def test_the_app_carries_what_commands_need(app):
    assert (app.dispatch_settings, app.dispatch_types) == (SETTINGS, TYPES)
    assert app.dispatch_map == topology.broker_map(SETTINGS)
    assert celery.current_app is not app


def test_a_client_imports_nothing_of_the_worker():
    """Also through what it imports; those parts are named as text, and loaded by a worker."""
    seen, todo = set(), ["dispatch.broker.celery_client"]
    while todo:
        module = todo.pop()
        path = ROOT / (module.replace(".", "/") + ".py")
        if module in seen or not path.exists():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            elif isinstance(node, ast.Import):
                todo += [name.name for name in node.names]

    assert len(seen) > 10
    assert [module for module in seen if module.startswith("dispatch.worker")] == []


def test_what_the_client_names_as_text_is_there(app):
    named = [app.conf.worker_consumer, app.conf.worker_pool, DispatchTask.Request, app.control_cls]
    paths = [ROOT / (name.partition(":")[0].replace(".", "/") + ".py") for name in named]

    assert all(f"class {name.partition(':')[2]}(" in path.read_text() for name, path in zip(named, paths, strict=True))


def test_a_task_becomes_one_message_for_the_publisher(app, send):
    message, exchange, key = submit(app, send)

    assert (exchange, key) == ("robot.task.topic", "robot.task.dispatch.greet")
    assert message.routing_key == key
    assert json.loads(message.body)[:2] == [[{"message": "ä"}], {}]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.headers["id"] == "t-1"
    assert (message.headers["task"], message.headers["x-seq"], message.headers["retries"]) == ("greet", 0, 0)
    assert message.correlation_id == "t-1"


def test_a_payload_appears_in_no_header(app, send):
    message, _, _ = submit(app, send, {"message": "hush"})

    assert "hush" not in json.dumps(message.headers, default=str)


def test_the_error_of_the_publisher_comes_through_untried(app):
    send = Failing(NotSent(), NotSent())
    with pytest.raises(NotSent):
        submit(app, send)

    assert len(send.calls) == 1


@each("option", ["countdown", "eta", "expires", "chord", "link_error"])
def test_an_option_that_would_lose_or_double_work_is_refused(app, option):
    with pytest.raises(Refused, match=f"{option} is refused"):
        app.tasks["greet"].apply_async(**{option: 1})


def test_a_task_cannot_retry_itself(app):
    with pytest.raises(Refused, match="raise RetryableError"):
        app.tasks["greet"].retry()


@each(
    ("exchange", "name"),
    [(types.SimpleNamespace(name="x"), "x"), ("y", "y"), (None, "robot.task.topic"), ("", "robot.task.topic")],
)
def test_the_producer_takes_an_exchange_or_its_name(exchange, name):
    send = Failing()
    with capturing(send) as producer:
        producer.publish([[], {}, {}], routing_key="k", exchange=exchange)
        producer.release()
    message, given, key = send.calls[0]

    assert (given, key) == (name, "k")
    assert (message.body, message.headers, message.correlation_id) == (b"[[], {}, {}]", {}, None)
