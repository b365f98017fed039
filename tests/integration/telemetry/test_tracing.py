"""One trace from the client's header through every attempt, the DLQ and the redrive; the same ids in logs and records."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import socket

import httpx
import pytest
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.trace import get_current_span as current_span
from prometheus_client.openmetrics import parser as openmetrics

from celery_app import create_celery
from dispatch.broker.celery_producer import dispatch
from dispatch.config.settings import ANSWER_WITHIN, load
from dispatch.errors import NotSent
from dispatch.protocol.record import State
from dispatch.telemetry import tracing
from support import collector as collectors
from support import servers as shared
from support import steps_client
from support.gateway_live import running_gateway
from support.ports import free_port
from support.waiting import eventually
from support.worker import open_bench, running_worker

CLIENT = "b7ad6b7169203331"


@dataclasses.dataclass
class System:
    """Gateway, worker and collector, each a process or a port of its own."""

    collector: collectors.Collector
    http: httpx.Client
    worker: object
    bench: object
    gateway_log: object
    gateway_pid: int  #: of gunicorn's master
    metrics_url: str  #: of the worker
    trace: str = ""  #: of this test

    @property
    def headers(self):
        return {"traceparent": f"00-{self.trace}-{CLIENT}-01", "X-Request-Id": "rq-trace"}

    def submit(self, payload, **headers):
        answer = self.http.post(
            "/v1/tasks", json={"type": "echo", "payload": payload}, headers={**self.headers, **headers}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    def lines(self, text, **wanted):
        return [line for line in map(json.loads, text.splitlines()) if all(line.get(k) == v for k, v in wanted.items())]


@pytest.fixture(scope="module")
def running(servers, tmp_path_factory):
    """One system for all of these tests, since each has a trace of its own."""
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collectors.collector())
        environ = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in collector.environ().items():
            environ.setenv(name, value)
        http_port = free_port()
        settings = load(
            {},
            broker_url=servers.broker_url(stack.enter_context(contextlib.contextmanager(shared.vhost)(servers))),
            management_url=servers.management_url,
            redis_url=servers.redis_url,
            redis_prefix=f"{shared.unique('t')}:",
            ladder="1m=1,5m=2,30m=3",
            lease_park=1,
            lease=2,
            soft_shutdown=2,
            worker_metrics_port=free_port(),
            http_allowed_hosts=f"127.0.0.1:{http_port}",
            run_dir=str(tmp_path_factory.mktemp("run")),
        )
        stack.callback(servers.delete_keys, settings.redis_prefix)
        made = stack.enter_context(open_bench(settings))
        worker = stack.enter_context(running_worker(settings, "-l", "debug", app=steps_client.APP))
        http, gateway, log = stack.enter_context(running_gateway(settings, http_port))
        metrics_url = f"http://127.0.0.1:{settings.worker_metrics_port}/metrics"
        yield System(collector, http, worker, made, log, gateway.pid, metrics_url)


@pytest.fixture
def system(running):
    return dataclasses.replace(running, trace=secrets.token_hex(16))


def named(spans, name):
    return [span for span in spans if span.name == name]


def one(spans, name):
    (found,) = named(spans, name)
    return found


def test_one_trace_through_two_failures_into_success(system):
    task = system.submit({"message": "third time", "failTimes": 2})
    record = system.bench.finished(task["taskId"])
    spans = system.collector.complete(system.trace, *["run/echo"] * 3, *["route echo"] * 2)
    server, created = one(spans, "POST /v1/tasks"), one(spans, "apply_async/echo")
    runs, routes = named(spans, "run/echo"), named(spans, "route echo")

    assert (task["traceId"], record.trace_id, record.state) == (system.trace, system.trace, State.SUCCEEDED)
    assert (server.parent_id, server.kind, server.attributes["robot.task.id"]) == (CLIENT, "server", task["taskId"])
    assert (created.parent_id, created.kind) == (server.span_id, "producer")
    assert [run.parent_id for run in runs] == [created.span_id, routes[0].span_id, routes[1].span_id]
    assert [route.parent_id for route in routes] == [runs[0].span_id, runs[1].span_id]
    assert [run.links for run in runs] == [[], [(system.trace, runs[0].span_id)], [(system.trace, runs[1].span_id)]]
    assert [run.attributes["robot.attempt"] for run in runs] == [1, 2, 3]
    assert [run.failed for run in runs] == [True, True, False]
    assert runs[0].attributes["error.type"] == "echo-failed"
    assert {run.kind for run in runs} == {"consumer"}
    assert {span.service for span in spans} == {"robot-dispatch-gateway", "robot-dispatch-worker"}
    assert system.collector.paths == {"/v1/traces"}


def test_the_waits_the_publishes_and_the_store_are_seen(system):
    task = system.submit({"message": "second time", "failTimes": 1})
    system.bench.finished(task["taskId"])
    spans = system.collector.complete(system.trace, *["run/echo"] * 2, "route echo", "wait robot.retry.q.1m")
    route = one(spans, "route echo")
    rung, published = one(spans, "wait robot.retry.q.1m"), one(spans, "publish robot.retry")

    assert rung.end - rung.start == pytest.approx(1, abs=0.01)
    assert rung.parent_id == published.parent_id == route.span_id
    assert len(named(spans, "wait robot.task.q")) == 2
    assert (published.kind, published.attributes["messaging.system"]) == ("producer", "rabbitmq")
    assert published.attributes["messaging.destination.name"] == "robot.retry"
    assert published.attributes["messaging.message.id"] == task["taskId"]
    assert published.attributes["messaging.operation.type"] == "send"
    assert published.attributes["messaging.rabbitmq.destination.routing_key"] == "robot.task.dispatch.echo"
    assert published.attributes["messaging.message.conversation_id"] == "rq-trace"
    assert {run.attributes["messaging.operation.type"] for run in named(spans, "run/echo")} == {"process"}
    assert {run.attributes["messaging.destination.name"] for run in named(spans, "run/echo")} == {"robot.task.q"}
    names = {span.name for span in spans}
    assert {
        "redis accept",
        "redis mark_published",
        "redis claim",
        "redis decide",
        "redis hand_over",
        "redis complete",
    } <= names


def test_a_wait_between_two_steps_is_a_span_and_no_failure(system):
    traceparent = f"00-{system.trace}-{secrets.token_hex(8)}-01"
    task_id = steps_client.send(system.bench, headers={"traceparent": traceparent})
    system.bench.finished(task_id)
    spans = system.collector.complete(system.trace, *["run/wait.steps"] * 2, "route wait.steps", "wait robot.delay.q.*")
    first, second = sorted(named(spans, "run/wait.steps"), key=lambda span: span.start)
    route, wait = one(spans, "route wait.steps"), one(spans, "wait robot.delay.q.*")

    assert wait.end - wait.start == pytest.approx(1, abs=0.01)
    assert (route.parent_id, wait.parent_id, second.parent_id) == (first.span_id, route.span_id, route.span_id)
    assert second.links == [(system.trace, first.span_id)]
    assert [run.failed for run in (first, second)] == [False, False]
    assert route.attributes["robot.decided"] == "wait 1 s"
    assert len(named(spans, "wait robot.task.q")) == 1


def test_one_trace_into_the_dlq_and_back_by_redrive(system):
    task = system.submit({"message": "never", "permanent": True})
    task_id = task["taskId"]
    system.bench.wait_for(task_id, State.DEAD_LETTERED)
    (dead_letter,) = eventually(system.bench.dead_letters, 10, "the dead letter is there")
    asking_trace = secrets.token_hex(16)
    asked = system.http.post(
        f"/v1/dead-letters/{task_id}/redrive", headers={"traceparent": f"00-{asking_trace}-{CLIENT}-01"}
    )
    assert asked.status_code == 202
    eventually(lambda: (r := system.bench.store.get(task_id)).cycle == 1 and r.state.terminal, 15, "it is dead again")
    spans = system.collector.complete(
        system.trace, *["run/echo"] * 2, *["route echo"] * 2, "redrive echo", *["dead letter"] * 2
    )
    asking = system.collector.complete(asking_trace, "POST /v1/dead-letters/<task_id>/redrive")
    runs, routes, redrive = named(spans, "run/echo"), named(spans, "route echo"), one(spans, "redrive echo")
    request = one(asking, "POST /v1/dead-letters/<task_id>/redrive")

    assert dead_letter.headers["traceparent"].split("-")[1:3] == [system.trace, routes[0].span_id]
    assert dead_letter.headers["x-request-id"] == "rq-trace"
    assert runs[1].parent_id == redrive.span_id
    assert runs[1].links == [(system.trace, runs[0].span_id)]
    assert redrive.links == [(asking_trace, request.span_id)]
    assert request.links == [(system.trace, redrive.span_id)]
    assert redrive.parent_id in {span.span_id for span in spans}
    assert [run.attributes["robot.cycle"] for run in runs] == [0, 1]
    assert len(named(spans, "publish robot.task.dlx")) == 2


def test_the_same_ids_are_in_the_logs_of_gateway_main_and_child_and_in_the_hops(system):
    task = system.submit({"message": "second time", "failTimes": 1})
    task_id = task["taskId"]
    system.bench.finished(task_id)
    spans = system.collector.complete(system.trace, *["run/echo"] * 2, "route echo")
    runs = named(spans, "run/echo")
    gateway = system.lines(system.gateway_log.read_text(), trace_id=system.trace, request_id="rq-trace")
    about = system.lines(system.worker.text(), trace_id=system.trace, request_id="rq-trace", task_id=task_id)
    main = [line for line in about if line["process"] == system.worker.process.pid]
    child = [line for line in about if line["process"] != system.worker.process.pid]
    started = [hop["spanId"] for hop in system.bench.store.hops(task_id) if hop["kind"] == "started"]

    assert [line["span_id"] for line in gateway if line["event"] == "request"] == [one(spans, "POST /v1/tasks").span_id]
    assert [line["attempt"] for line in main if line["event"] == "task received"] == [1, 2]
    assert [line["span_id"] for line in child if line["event"] == "handler raised"] == [runs[0].span_id]
    assert [(line["attempt"], line["span_id"]) for line in main if line["event"] == "task succeeded"] == [
        (2, runs[1].span_id)
    ]
    assert started == [run.span_id for run in runs]
    # Each process has a recorder of its own, also after the forks of gunicorn and of the pool.
    assert {line["process"] for line in gateway} == {one(spans, "POST /v1/tasks").process}
    assert one(spans, "POST /v1/tasks").process != system.gateway_pid
    assert one(spans, "route echo").process == system.worker.process.pid
    assert {line["process"] for line in child} >= {runs[0].process}
    assert system.worker.process.pid not in {run.process for run in runs}


def test_a_scraper_that_asks_for_openmetrics_gets_the_trace_as_an_exemplar(system):
    system.bench.finished(system.submit({"message": "x"})["taskId"])
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}

    def exemplars():
        answer = httpx.get(system.metrics_url, headers=accept, trust_env=False)
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        families = openmetrics.text_string_to_metric_families(answer.text)
        samples = [each for family in families for each in family.samples if each.exemplar]
        return {each.name for each in samples if each.exemplar.labels == {"trace_id": system.trace}}

    wanted = {"robot_task_duration_seconds_bucket", "robot_task_queue_seconds_bucket"}
    eventually(lambda: exemplars() >= wanted, 10, "both histograms name the trace")
    plain = httpx.get(system.metrics_url, trust_env=False)

    assert plain.headers["Content-Type"].startswith("text/plain")
    assert system.trace not in plain.text


def test_an_outgoing_request_is_a_span_without_its_query(system):
    payload = {"method": "GET", "url": f"{system.http.base_url}/v1/task-types?key=hunter2"}
    answer = system.http.post("/v1/tasks", json={"type": "http.request", "payload": payload}, headers=system.headers)
    system.bench.finished(answer.json()["taskId"])
    spans = system.collector.complete(system.trace, "run/http.request", "GET", "GET /v1/task-types")
    outgoing = one(spans, "GET")

    assert outgoing.parent_id == one(spans, "run/http.request").span_id
    assert one(spans, "GET /v1/task-types").parent_id == outgoing.span_id  # the trace goes on at the other end
    assert outgoing.attributes["http.url"].endswith("/v1/task-types")
    assert "hunter2" not in str([span.attributes for span in spans])


@pytest.fixture
def recording(monkeypatch):
    """Spans of this very process."""
    with collectors.collector() as collector:
        for name, value in collector.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext")  # `start` would set it for good
        monkeypatch.setattr(tracing, "_backend", None)  # what is put back at the end
        assert tracing.start("test")
        yield collector
        tracing.stop()


@pytest.mark.parametrize("error", [NotSent("no broker"), KeyboardInterrupt()])
def test_a_publish_that_fails_leaves_no_span_current_and_ends_its_own(recording, error):
    celery = create_celery(load({}))
    celery.set_default()
    tracing.backend().instrument_tasks()

    def send(*_):
        assert current_span().get_span_context().is_valid  # the publish is within its span
        raise error

    try:
        with pytest.raises(type(error)):
            dispatch(celery.tasks["echo"], {"message": "x"}, task_id="t-1", headers={}, send=send)
        assert not current_span().get_span_context().is_valid
    finally:
        CeleryInstrumentor().uninstrument()
    (span,) = eventually(lambda: recording.spans, 5, "the span is exported")

    assert (span.name, span.failed, span.attributes["error.type"]) == ("apply_async/echo", True, type(error).__name__)


@pytest.mark.parametrize("silent", [False, True], ids=["nothing listens", "a listener never answers"])
def test_a_collector_that_is_away_delays_nothing(settings, monkeypatch, silent):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen(64)
        for name, value in collectors.Collector(f"http://127.0.0.1:{listener.getsockname()[1]}").environ().items():
            monkeypatch.setenv(name, value)
        made = stack.enter_context(open_bench(settings))
        worker = stack.enter_context(running_worker(settings)).process
        http, gateway, _ = stack.enter_context(running_gateway(settings, free_port()))
        answers = [http.post("/v1/tasks", json={"type": "echo", "payload": {"message": "x"}}) for _ in range(20)]
        ends = {made.finished(answer.json()["taskId"]).state for answer in answers}
        gateway.terminate()
        worker.terminate()
        codes = [process.wait(20) for process in (gateway, worker)]  # OpenTelemetry's own end takes half a minute

    assert {answer.status_code for answer in answers} == {202}
    assert max(answer.elapsed.total_seconds() for answer in answers) < ANSWER_WITHIN
    assert ends == {State.SUCCEEDED}
    assert codes == [0, 0]


def test_what_the_client_did_not_sample_is_not_recorded_and_keeps_its_trace(system):
    task = system.submit({"message": "x"}, traceparent=f"00-{system.trace}-{CLIENT}-00")
    record = system.bench.finished(task["taskId"])

    assert record.trace_id == system.trace
    assert record.traceparent.endswith("-00")
    assert system.collector.trace(system.trace) == []


def test_a_killed_childs_run_is_in_the_trace_all_the_same(system):
    task_id = system.submit({"message": "x", "sleepSeconds": 30})["taskId"]
    # RUNNING is true of a task that is claimed and has not begun, which a process that dies now gives back.
    eventually(lambda: "progress" in system.bench.hops(task_id), 20, "its handler has begun")
    for child in system.worker.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    eventually(lambda: named(system.collector.trace(system.trace), "route echo"), 20, "the loss is routed")
    spans = system.collector.trace(system.trace)
    run, route = one(spans, "run/echo"), one(spans, "route echo")

    assert route.parent_id == run.span_id
    assert (run.failed, run.attributes["error.type"]) == (True, "WorkerLostError")
