"""A delivery in the main process: which headers a run sees, and which failure an error of Celery's is."""

import types

import pytest
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Terminated

from dispatch.errors import NotSent, StoreUnavailable
from dispatch.protocol.copies import parked_copy
from dispatch.protocol.retry import AttemptFailed, Failure, FailureKind, parse_ladder
from dispatch.protocol.sealing import UNSEALED
from dispatch.store.claims import ClaimAnswer, Claimed, Ticket, ToComplete, ToRelease
from dispatch.tasktypes.ladders import Ladders
from dispatch.worker import request as module
from dispatch.worker.outcomes import ClaimUnanswered, DecidedBefore, LeaseTaken, NothingToDo
from dispatch.worker.pace import Pace
from dispatch.worker.request import HOLD_PAUSE, LAST_WAIT, LONGEST_HOLD, DeliveryRequest, _failure, celery_headers
from support.cases import each
from support.unit_fakes import Failing, task_message

FAILURE = Failure(FailureKind.THROTTLED, "throttled", "busy", 7.0)


def test_a_run_sees_celerys_headers_as_text_and_ours_as_they_are():
    message = task_message(lang="py", root_id=7, parent_id=None, traceparent="00-x", tracestate="y", retries=2)

    assert celery_headers(message) == {
        "id": "t-1", "task": "echo", "lang": "py", "root_id": "7", "parent_id": None,
        "x-cycle": 0, "x-seq": 3, "x-attempt": 2, "x-principal": "ada", "x-accepted-at": 1_700_000_000_000,
        "traceparent": "00-x", "tracestate": "y", "retries": 2,
    }  # fmt: skip


@each("header", ["timelimit", "expires", "eta", "ignore_result", "stamps", "replaced_task_nesting", "reply_to"])
def test_a_header_of_the_sender_steers_no_run(header):
    assert header not in celery_headers(task_message(**{header: [1, 1]}))


@each("retries", ["3", None, True, [1]])
def test_a_counter_that_is_no_number_is_0(retries):
    assert celery_headers(task_message(retries=retries))["retries"] == 0


@each(
    ("error", "kind", "name"),
    [
        (AttemptFailed.of(FAILURE), FailureKind.THROTTLED, "throttled"),
        (TimeLimitExceeded(300), FailureKind.RETRYABLE, "time-limit"),
        (WorkerLostError("signal 9"), FailureKind.RETRYABLE, "worker-lost"),
        (Terminated(15), FailureKind.RETRYABLE, "worker-lost"),
        (SystemExit(1), FailureKind.RETRYABLE, "worker-lost"),
        (KeyboardInterrupt(), FailureKind.RETRYABLE, "worker-lost"),
        (ValueError("oops"), FailureKind.RETRYABLE, "ValueError"),
    ],
)
def test_the_failure_that_an_error_is(error, kind, name):
    failure = _failure(error)

    assert (failure.kind, failure.type) == (kind, name)


def test_a_failure_comes_through_with_the_time_that_was_asked_for():
    assert _failure(AttemptFailed.of(FAILURE)) == FAILURE


class FakeHandOver:
    """A hand-over that is through at once."""

    final, decision, cancelled, counted, copy = False, None, False, False, None

    def __init__(self, carry_out):
        self.carry_out = carry_out


class World:
    """A delivery whose child has ended, and what the main process does with it."""

    def __init__(self, monkeypatch, **celery_state):
        none = {
            "should_stop": None,
            "should_terminate": None,
            "task_ready": lambda _: None,
            "task_reserved": lambda _: None,
        }
        monkeypatch.setattr(module, "state", types.SimpleNamespace(**{**none, **celery_state}))
        self.did, self.jobs, self.later, self.events, self.asked = [], [], [], [], []
        self.publish = Failing()
        router = types.SimpleNamespace(
            publish=lambda copy: (self.publish(copy), self.note("published", copy.queue)),
            hand_over=lambda copy, owner: self.note("handed over", copy.queue, owner),
            release=lambda _message, ticket, queue: self.note("released", ticket.owner, queue),
            decide=lambda _message, _ticket, failure: self.decide(failure),
            submit=self.jobs.append,
            submit_together=lambda _handover, job, **_: self.jobs.append(job),
            carry_out=lambda handover: handover.carry_out(),
            sealing=UNSEALED,
            dead_lettering=lambda _wire, reason, text: lambda: self.note("dead-lettered", reason.value, text),
            loop=types.SimpleNamespace(call=lambda function: function()),
            leases=types.SimpleNamespace(
                drop=lambda _ticket: self.note("lease dropped"), hold=lambda *_: self.note("lease held")
            ),
            pace=Pace(),
            batcher=types.SimpleNamespace(ask=lambda *asked: self.asked.append(asked)),
            ladders=Ladders(parse_ladder("1m=60")),
            settle=lambda seconds: self.note("settled", seconds),
            lost_runs=3,
            cancel_grace=30.0,
        )
        hub = types.SimpleNamespace(call_later=lambda seconds, function: self.later.append((seconds, function)))
        self.consumer = types.SimpleNamespace(hub=hub)
        starter = types.SimpleNamespace(add=lambda _: self.note("in the line"))
        gate = types.SimpleNamespace(renewals=types.SimpleNamespace(drop=lambda _: None))
        worker = types.SimpleNamespace(router=router, consumer=self.consumer, starter=starter, gate=gate)
        self.request = self.delivery(worker)

    def delivery(self, worker):
        request = object.__new__(DeliveryRequest)
        conf = types.SimpleNamespace(task_default_queue="robot.task.q")
        request._worker, request._app = worker, types.SimpleNamespace(conf=conf)
        request.wire, request.ticket = task_message(), Ticket("owner", "f" * 16, "w@test")
        request._owner, request._hostname, request._request_dict = "owner", "w@test", {}
        request._pause, request.acknowledged, request._connection_errors = HOLD_PAUSE, False, ()
        request._held_for = ""
        request._already_cancelled = request._reported = False
        request.keys = ()
        request._type, request._task = "echo", types.SimpleNamespace(time_limit=60.0)
        request._run = types.SimpleNamespace(
            succeeded=lambda: None,
            failed=lambda *_: None,
            handed_over=lambda *_: self.note("counted"),
            seconds=1.0,
            until=lambda limit: limit,
        )
        request._on_ack = lambda *_: self.note("acked")
        request._message = types.SimpleNamespace(
            ack_log_error=lambda *_: self.note("acked at once"), channel=types.SimpleNamespace(connection=object())
        )
        request.send_event = lambda name, **_: self.events.append(name)
        return request

    def note(self, *step):
        self.did.append(step[0] if len(step) == 1 else step)

    def decide(self, failure):
        return FakeHandOver(lambda: self.note("carried out", failure.type))

    def end(self, error):
        self.request.on_failure(types.SimpleNamespace(exception=error, traceback="Traceback"))
        self.work()

    def work(self):
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


COPY = parked_copy(task_message(**{"x-seq": 9}))


@each(
    ("error", "steps"),
    [
        (NothingToDo("DONE"), ["lease dropped", "acked"]),
        (LeaseTaken("t-1"), [("published", "robot.retry.q.lease"), "lease dropped", "acked"]),
        (
            DecidedBefore(COPY),
            [("published", COPY.queue), ("handed over", COPY.queue, ""), "lease dropped", "acked"],
        ),
        (AttemptFailed.of(FAILURE), [("carried out", "throttled"), "counted", "lease dropped", "acked"]),
        (
            ExceptionWithTraceback(ValueError("a"), None),
            [("carried out", "ValueError"), "counted", "lease dropped", "acked"],
        ),
        (WorkerLostError("signal 9"), [("carried out", "worker-lost"), "counted", "lease dropped", "acked"]),
    ],
    ids=[
        "nothing to do",
        "leased",
        "decided before",
        "failed",
        "failed in billiard's wrapping",
        "a lost child",
    ],
)
def test_what_follows_the_end_of_a_run(monkeypatch, error, steps):
    world = World(monkeypatch)
    world.end(error)

    assert world.did == steps


def test_a_failed_attempt_is_an_event(world):
    world.end(AttemptFailed.of(FAILURE))

    assert world.events == ["task-retried"]


def test_a_copy_that_is_not_published_is_not_acked(world):
    world.publish.errors = [NotSent()]
    with pytest.raises(NotSent):
        world.end(LeaseTaken("t-1"))

    assert world.did == []


def test_a_child_that_this_worker_stopped_gives_its_lease_back_without_an_ack(monkeypatch):
    world = World(monkeypatch)
    world.request._already_cancelled = True
    world.end(Terminated(15))

    assert world.did == [("released", "owner", "robot.task.q")]


def test_a_delivery_without_an_answer_to_its_claim_is_held_with_rising_pauses(world):
    for _ in range(7):
        world.end(ClaimUnanswered("away"))

    assert [seconds for seconds, _ in world.later] == [0.5, 1, 2, 4, 8, LONGEST_HOLD, LONGEST_HOLD]
    assert "acked" not in world.did


def test_a_held_delivery_is_given_to_a_child_with_a_new_fence(world):
    before = world.request.ticket
    world.end(ClaimUnanswered("away"))
    world.later[0][1]()
    after = world.request.ticket

    assert world.did[-1] == "in the line"
    assert (after.owner, after.fence == before.fence) == (before.owner, False)
    assert world.request._request_dict["dispatch-fence"] == after.fence


def test_a_held_delivery_whose_channel_is_gone_is_the_brokers_again(world):
    world.end(ClaimUnanswered("away"))
    world.request._message.channel.connection = None
    world.later[0][1]()

    assert "in the line" not in world.did


def test_a_worker_that_shuts_down_hands_over_at_once_and_acks_itself(monkeypatch):
    world = World(monkeypatch, should_stop=0)
    world.end(LeaseTaken("t-1"))

    assert world.did == [("published", "robot.retry.q.lease"), "lease dropped", "acked at once"]


def test_what_cannot_be_handed_over_before_the_shutdown_stays_unacked(monkeypatch):
    world = World(monkeypatch, should_stop=0)
    world.publish.errors = [NotSent()]
    world.end(LeaseTaken("t-1"))

    assert world.did == []


def test_a_worker_that_shuts_down_holds_nothing(monkeypatch):
    world = World(monkeypatch, should_terminate=0)
    world.end(ClaimUnanswered("away"))

    assert (world.did, world.later) == ([], [])


def test_a_delivery_is_never_revoked(world):
    assert world.request.revoked() is False


def test_the_hard_limit_alone_acks_nothing(world):
    world.request.on_timeout(soft=False, timeout=300)

    assert world.did == []


REPORT = (0, "{'a': 1}", 0.5, '{"a":1}')


def answered(world, answer, report=REPORT):
    """A handler returns, and Redis answers."""
    world.request.on_success(report)
    (step, done, until), world.asked = world.asked[-1], []
    assert (step.ticket, step.result, until) == (world.request.ticket, report[3], 60.0)
    done(answer)
    world.work()


def test_a_success_is_acked_when_it_is_recorded(world):
    world.request.on_success(REPORT)
    waiting = list(world.did)
    world.asked[-1][1](True)

    assert isinstance(world.asked[0][0], ToComplete)
    assert (waiting, world.did, world.events) == ([], ["lease dropped", "acked"], ["task-succeeded"])


def test_a_success_that_the_child_has_recorded_is_acked_at_once(world):
    world.request.on_success(REPORT[:3])

    assert (world.asked, world.did) == ([], ["lease dropped", "acked"])


def test_a_success_that_the_fence_refuses_is_another_runs_task(world):
    answered(world, False)

    assert world.did == [("published", "robot.retry.q.lease"), "lease dropped", "acked"]


def test_a_success_that_redis_does_not_take_in_time_parks_the_copy(world):
    answered(world, StoreUnavailable())

    assert world.did == [("carried out", "store-unavailable"), "counted", "lease dropped", "acked"]


@each(("celery_state", "seconds"), [({"should_stop": 0}, None), ({"should_terminate": 0}, LAST_WAIT)])
def test_a_worker_that_shuts_down_waits_until_a_success_is_recorded(monkeypatch, celery_state, seconds):
    world = World(monkeypatch, **celery_state)
    world.request.on_success(REPORT)

    assert world.did == [("settled", seconds)]


def test_a_failure_that_the_child_reports_is_one(world):
    failed = types.SimpleNamespace(exception=AttemptFailed.of(FAILURE), traceback="")
    world.request.on_success((1, failed, 0.0))
    world.work()

    assert world.did == [("carried out", "throttled"), "counted", "lease dropped", "acked"]


def test_a_run_that_has_ended_is_not_cancelled(world):
    world.request.on_success(REPORT)
    world.request.cancel(None)
    world.request.terminate(None)

    assert world.did == []


def test_a_run_in_a_thread_goes_on_when_its_connection_is_lost(world):
    world.request.cancel(types.SimpleNamespace(kills=False))

    assert world.did == []
    assert not world.request._already_cancelled


def test_what_was_claimed_and_has_not_begun_gives_its_claim_back_and_is_claimed_with_another_fence(world):
    before = world.request.ticket
    world.request.unclaim()
    ((step, _),) = world.asked

    assert isinstance(step, ToRelease)
    assert (step.ticket, step.queue) == (before, "robot.task.q")
    assert world.request.to_claim().ticket.fence != before.fence


@each(
    ("answer", "steps"),
    [
        (Claimed(ClaimAnswer.DONE), ["lease dropped", "acked"]),
        (Claimed(ClaimAnswer.BUSY), [("published", "robot.retry.q.lease"), "lease dropped", "acked"]),
        (
            Claimed(ClaimAnswer.ROUTE, COPY),
            [("published", COPY.queue), ("handed over", COPY.queue, ""), "lease dropped", "acked"],
        ),
        (
            Claimed(ClaimAnswer.LOST),
            ["lease held", ("carried out", "worker-lost"), "counted", "lease dropped", "acked"],
        ),
    ],
)
def test_what_follows_a_claim_that_was_not_granted(monkeypatch, answer, steps):
    world = World(monkeypatch)
    world.request.not_claimed(answer)
    world.work()

    assert world.did == steps


def test_a_claim_without_an_answer_is_held(world):
    world.request.not_claimed(StoreUnavailable())

    assert (world.did, len(world.later)) == ([], 1)
