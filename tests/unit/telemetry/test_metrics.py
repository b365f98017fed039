"""Every metric has a description, bounded labels and the name that rules and dashboards ask for."""

import threading
from pathlib import Path

import pytest

from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.message import Message
from dispatch.protocol.retry import AttemptFailed, Dead, Failure, FailureKind, Park, Retry, Rung
from dispatch.telemetry import metrics
from dispatch.worker.outcomes import ClaimUnanswered, DecidedBefore, LeaseTaken, NothingToDo
from dispatch.worker.run_metrics import Run, claim_answer, queued_since
from support import deploy
from support.cases import each
from support.gateway_fakes import World

ROOT = Path(__file__).parents[3]
GATHERED = (
    metrics.QUEUE_MESSAGES,
    metrics.QUEUE_CONSUMERS,
    metrics.OLDEST,
    metrics.DRIFT,
    metrics.REDIS_MEMORY,
    metrics.HELD,
    metrics.SCHEDULES,
    metrics.LAST_FIRE,
    metrics.BUILD,
)


def value(name, **labels):
    found = metrics.registry().get_sample_value(name, labels)
    return found or 0.0


def test_the_committed_reference_is_the_current_one():
    assert (ROOT / "docs/reference/metrics.md").read_text() == metrics.reference()


def test_rules_and_dashboards_read_the_same_metrics():
    ours = {each.name: set(each.labels) for each in metrics.Instrument.every}
    ours |= {name: set(labels) for name, _, labels in GATHERED}

    assert ours == deploy.METRICS


def test_a_request_is_counted_by_its_template_and_a_refusal_by_its_slug():
    client = World().client()
    before = value("robot_http_requests_total", method="GET", route="/v1/tasks/{taskId}", status="404")
    refused = value("robot_tasks_refused_total", reason="unknown-task-type")
    client.get("/v1/tasks/x")
    client.get("/nowhere")
    client.open("/livez", method="BREW")
    client.post("/v1/tasks", json={"type": "nope", "payload": {}})

    assert value("robot_http_requests_total", method="GET", route="/v1/tasks/{taskId}", status="404") == before + 1
    assert value("robot_http_requests_total", method="GET", route="other", status="404") >= 1
    assert value("robot_http_requests_total", method="other", route="other", status="405") >= 1
    assert value("robot_tasks_refused_total", reason="unknown-task-type") == refused + 1


def test_an_accepted_task_is_counted_by_its_type():
    before = value("robot_tasks_accepted_total", type="greet")
    World().client().post("/v1/tasks", json={"type": "greet", "payload": {"message": "m"}})

    assert value("robot_tasks_accepted_total", type="greet") == before + 1


def test_metrics_are_text_and_openmetrics_when_asked_for():
    client = World().client()
    plain = client.get("/metrics")
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.mimetype == "text/plain"
    assert openmetrics.mimetype == "application/openmetrics-text"
    assert openmetrics.text.endswith("# EOF\n")
    assert 'robot_build_info{version="' in plain.text


def test_what_is_in_no_closed_set_is_other():
    assert metrics.type_label("no.such.type") == "other"
    assert metrics.one_of("what a stranger wrote", metrics.DEAD_REASONS) == "other"


@each(
    ("error", "answer"),
    [
        (ClaimUnanswered("x"), "UNKNOWN"),
        (LeaseTaken("x"), "BUSY"),
        (NothingToDo("STALE"), "STALE"),
        (DecidedBefore("{}"), "ROUTE"),
        (AttemptFailed.of(Failure(FailureKind.RETRYABLE, "worker-lost", "")), "LOST"),
        (AttemptFailed.of(Failure(FailureKind.RETRYABLE, "ValueError", "")), "RUN"),
        (MemoryError(), "RUN"),
    ],
)
def test_how_a_run_ended_shows_what_its_claim_answered(error, answer):
    assert claim_answer(error) == answer


@pytest.mark.parametrize(
    ("decision", "type_", "outcome", "rung"),
    [
        (Retry(Rung("1m", 60)), "ValueError", "retried", "1m"),
        (Park(Rung("5m", 300)), "throttled", "parked", "5m"),
        (Dead(Reason.PERMANENT), "permanent", "dead", None),
        (Retry(Rung("1m", 60)), "worker-lost", "worker-lost", "1m"),
    ],
)
def test_an_attempt_is_counted_by_what_was_decided(decision, type_, outcome, rung):
    before = value("robot_task_attempts_total", type="other", outcome=outcome)
    climbed = value("robot_task_retries_total", type="other", rung=rung)
    Run(Message(b"", {"id": "t", "task": "strange"})).handed_over(Failure(FailureKind.RETRYABLE, type_, ""), decision)

    assert value("robot_task_attempts_total", type="other", outcome=outcome) == before + 1
    assert rung is None or value("robot_task_retries_total", type="other", rung=rung) == climbed + 1


def test_only_the_first_outcome_of_a_run_counts():
    before = value("robot_task_attempts_total", type="other", outcome="succeeded")
    run = Run(Message(b"", {"id": "t", "task": "strange"}))
    run.failed(NothingToDo("DONE"), "f" * 16)
    run.succeeded()  # the ack of what did not run

    assert value("robot_task_attempts_total", type="other", outcome="succeeded") == before


def test_time_in_the_queue_begins_when_the_rungs_wait_ends():
    assert queued_since(Message(b"", {"x-accepted-at": 5_000})) == 5.0
    assert queued_since(Message(b"", {"x-accepted-at": 5_000, "x-queued-at": 65_000})) == 65.0
    assert queued_since(Message(b"", {})) is None


def test_a_histogram_carries_the_trace_as_an_exemplar():
    metrics.DURATION.observe(0.2, "other", trace="a" * 32)
    text = metrics.render("application/openmetrics-text; version=1.0.0")[0].decode()

    assert f'# {{trace_id="{"a" * 32}"}} 0.2' in text


def test_threads_that_count_for_the_first_time_at_once_are_all_counted(monkeypatch):
    monkeypatch.setattr(metrics.Instrument, "every", [])
    made = metrics.Instrument("counter", "test_at_once", "Made by many threads.", ("origin",), where="gateway")
    begin = threading.Barrier(16)

    def count():
        begin.wait()
        made.inc("all")

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted = value("test_at_once_total", origin="all")
    made.reset()

    assert counted == 16
