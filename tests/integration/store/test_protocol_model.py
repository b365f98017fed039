"""The Redis transitions against a plain model of the design's table: many owners, lapsing leases, lost data.

Hypothesis chooses what happens next to one task; after each step Redis and the model must agree, and whatever
happened, a cycle has at most one SUCCESS while Redis keeps its data (P3).
"""

import dataclasses
import itertools

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dispatch.protocol.copies import held_copy, next_copy, redriven_copy, resent_copy, step_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import MAX_AHEAD, Message
from dispatch.protocol.record import ErrorInfo, State
from dispatch.protocol.retry import Dead, Failure, FailureKind, Retry
from dispatch.store.cancellations import CancelAnswer
from dispatch.store.claims import ClaimAnswer, Ticket, ToComplete
from dispatch.store.dead_letters import DeadLetterAnswer
from dispatch.store.handovers import DecisionAnswer, NextStep
from dispatch.store.holds import HoldAnswer, Holds
from dispatch.store.signals import NewSignal, SignalAnswer
from support.stores import Stores

TERMINAL = {"SUCCEEDED", "DEAD_LETTERED", "EXPIRED", "CANCELLED", "REJECTED"}
BURIED = {"DEAD_LETTERED", "EXPIRED"}
FAILURE = Failure(FailureKind.RETRYABLE, "some-error", "it failed")
REFUSED = ErrorInfo("broker-unavailable", "refused", retryable=True)
ATTEMPTS = 4
LOST_RUNS = 3


@dataclasses.dataclass
class Model:
    """What Redis should hold, in plain words."""

    state: str
    cycle: int = 0
    seq: int = 0
    published: bool = True
    fence: str | None = None
    owner: str | None = None
    done_fence: str | None = None
    decided: int | None = None
    decision_dead: bool = False
    before: str | None = None
    discarded: bool = False
    cancel: bool = False
    lost: int = 0
    dead_letters: int = 0
    step: int = 0
    waits_for: tuple[str, ...] = ()
    signals: list[str] = dataclasses.field(default_factory=list)
    taken: dict[str, int] = dataclasses.field(default_factory=dict)
    woken: bool = False  #: by the cancellation, at the end of a step

    @property
    def may_undo(self) -> bool:
        return self.step > 0

    def take(self, names: tuple[str, ...]) -> bool:
        """Whether a signal has come that ended no wait yet."""
        found = False
        for number, name in enumerate(self.signals, 1):
            if name in names and number > self.taken.get(name, 0):
                self.taken[name], found = number, True
        return found


def foreign(m, message):
    """Whether a message claims more than what Redis may have lost in its last second."""
    if m.cycle > message.cycle:
        return False
    ended = m.state in TERMINAL - BURIED
    return (m.cycle < message.cycle and ended) or max(message.cycle - m.cycle, message.seq - m.seq) > MAX_AHEAD


class Protocol(RuleBasedStateMachine):
    """One task, its copies and its dead letters, and every transition of them."""

    def __init__(self, stores):
        super().__init__()
        self.stores = stores
        self.store, self.claims, self.handovers = stores.tasks, stores.claims, stores.handovers
        self.holds = Holds(stores.redis)
        self.records, self.redis, self.ladder = stores.dead_letters, stores.redis, stores.settings.ladder
        self.task_id = new_task_id()
        self.model: Model | None = None
        self.lease: str | None = None
        self.tickets: list[tuple[Ticket, Message]] = []
        self.copies = [self._message(0, 0, 1)]
        self.dead_letters: list[Message] = []
        self.pending: list = []
        self.successes: dict[int, int] = {}
        self.ended: list[tuple[Ticket, Message]] = []  # as Redis has acknowledged
        self.names = itertools.count()

    def _message(self, cycle, seq, attempt):
        headers = {"id": self.task_id, "task": "echo", "x-cycle": cycle, "x-seq": seq, "x-attempt": attempt}
        return Message(b"[[{}],{},{}]", {**headers, "x-principal": "p"}, routing_key="robot.task.dispatch.echo")

    def _recreated(self, message, state="QUEUED"):
        if self.model is None:
            self.model = Model(state, message.cycle, message.seq, published=False, step=message.step)
            return True
        return False

    # --- accepting ---------------------------------------------------------------------------------
    @rule()
    def accept(self):
        state = self.store.accept(self.copies[0], max_attempts=ATTEMPTS, idempotency_key=None)
        if self.model is None:
            self.model = Model("SCHEDULED", published=False)

        assert state == self.model.state

    @rule(state=st.sampled_from([State.QUEUED, State.DELAYED]))
    def mark_published(self, state):
        marked = self.store.mark_published(
            self.copies[0], queue="a queue", state=state, max_attempts=ATTEMPTS, idempotency_key=None
        )
        self._recreated(self.copies[0], "SCHEDULED")
        if self.model.state == "REJECTED":
            assert not marked
            return
        self.model.published = True
        if self.model.state == "SCHEDULED":
            self.model.state = state.value

        assert marked

    @rule()
    def reject(self):
        rejected = self.store.reject(self.copies[0], error=REFUSED, idempotency_key=None)
        m = self.model
        may = m is not None and m.state == "SCHEDULED" and not m.published and m.cycle == 0 and m.decided is None
        was = m is None or m.state == "REJECTED"
        if may:
            m.state = "REJECTED"

        assert rejected == (may or was)

    # --- a run -------------------------------------------------------------------------------------
    @property
    def _unclaimed(self):
        """Whether no run has the task, as far as Redis knows."""
        m = self.model
        return m.state not in TERMINAL and m.fence is None and self.lease is None

    def _claim_again(self, ticket, copy):
        again = self.claims.claim_again(copy, ticket, ATTEMPTS)

        assert again == (self._claimed(copy, ticket) in (ClaimAnswer.RUN, ClaimAnswer.LOST))

    @rule(data=st.data(), again=st.booleans())
    def claim(self, data, again):
        copy = data.draw(st.sampled_from(self.copies))
        number = next(self.names)
        mine = [ticket for ticket, message in self.tickets if message is copy]
        owner = mine[-1].owner if again and mine else f"owner-{number}"
        ticket = Ticket(owner, f"fence-{number}", "w")
        answer = self.claims.claim(copy, ticket, ATTEMPTS).answer
        expected = self._claimed(copy, ticket)
        if answer in (ClaimAnswer.RUN, ClaimAnswer.LOST):
            self.tickets.append((ticket, copy))

        assert answer == expected

    def _claimed(self, copy, ticket):
        self._recreated(copy)
        return ClaimAnswer.FOREIGN if foreign(self.model, copy) else self._taken(copy, ticket)

    def _taken(self, copy, ticket):
        return self._over(copy, ticket) or self._begun(copy, ticket)

    def _over(self, copy, ticket):
        """Why a copy does not run; None when it may."""
        m, cycle, seq = self.model, copy.cycle, copy.seq
        if m.state in {"CANCELLED", "REJECTED"} and m.cycle >= cycle:
            return ClaimAnswer.CANCELLED
        if m.cycle > cycle or (m.cycle == cycle and m.state in TERMINAL):
            return ClaimAnswer.DONE
        if m.cycle == cycle and m.seq > seq:
            return ClaimAnswer.STALE
        if m.cycle == cycle and m.decided == seq:
            return ClaimAnswer.ROUTE
        if self.lease is not None and (ticket is None or self.lease != ticket.owner):
            return ClaimAnswer.BUSY
        return None

    def _begun(self, copy, ticket):
        m, cycle, seq = self.model, copy.cycle, copy.seq
        same, later = m.cycle == cycle and m.seq == seq, m.cycle < cycle
        died = same and m.fence is not None and self.lease is None and m.owner != ticket.owner
        if m.cycle != cycle:
            m.cancel = m.woken = False
        if died and m.cancel and not m.may_undo:
            self._end_cancelled()
            return ClaimAnswer.CANCELLED
        m.lost = m.lost + died if same else 0
        lost = died and m.lost >= LOST_RUNS
        m.state, m.cycle, m.seq, m.published = "RUNNING", cycle, seq, True
        m.owner, m.fence, m.decided, self.lease = ticket.owner, ticket.fence, None, ticket.owner
        m.before, m.discarded = None, False
        m.step = copy.step if later else copy.step or m.step
        return ClaimAnswer.LOST if lost else ClaimAnswer.RUN

    @rule(data=st.data(), held_by=st.sampled_from(["type:echo", "key:k", "rate:echo"]))
    def hold(self, data, held_by):
        copy = data.draw(st.sampled_from(self.copies))
        held = self.holds.hold(copy, held_copy(copy, 600), held_by, ATTEMPTS, listed=False)
        self._recreated(copy)
        expected = HoldAnswer.FOREIGN if foreign(self.model, copy) else self._held(copy)
        if held.copy is not None:
            self.pending.append((held.copy, ""))

        assert held.answer == expected

    def _held(self, copy):
        m = self.model
        if (over := self._over(copy, None)) is not None:
            return HoldAnswer(over.value)
        died = (m.cycle, m.seq) == (copy.cycle, copy.seq) and m.fence is not None
        if m.cycle != copy.cycle:
            m.cancel, m.woken, m.lost, m.step = False, False, 0, copy.step
        if died and m.cancel and not m.may_undo:
            self._end_cancelled()
            return HoldAnswer.CANCELLED
        m.lost += died
        m.state, m.cycle, m.seq, m.published = "HELD", copy.cycle, copy.seq, True
        m.decided, m.decision_dead, m.fence, m.owner = copy.seq, False, None, None
        m.before, m.discarded = None, False
        m.step = copy.step or m.step
        return HoldAnswer.HELD

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def complete(self, data):
        ticket, copy = data.draw(st.sampled_from(self.tickets))
        done = self.claims.complete(copy, ticket, {"ok": True}, ATTEMPTS)
        if self._recreated(copy):
            self.model.fence = ticket.fence
        m = self.model
        if self._unclaimed and m.fence != ticket.fence:
            self._claimed(copy, ticket)  # Redis may have lost its claim
        again = m.state == "SUCCEEDED" and m.done_fence == ticket.fence
        may = m.state not in TERMINAL and m.fence == ticket.fence
        if may:
            m.state, m.done_fence, m.fence, m.owner = "SUCCEEDED", ticket.fence, None, None
            self.successes[m.cycle] = self.successes.get(m.cycle, 0) + 1
            if self.lease == ticket.owner:
                self.lease = None

        if done:
            self.ended.append((ticket, copy))

        assert done == (may or again)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def an_end_is_repeated(self, data):
        ticket, copy = data.draw(st.sampled_from(self.ended))
        self.claims.repeat_ends([ToComplete(copy, ticket, ATTEMPTS, '{"ok":true}')])
        self._recreated(copy)
        m = self.model
        if m.cycle > copy.cycle or (m.cycle == copy.cycle and m.state in TERMINAL):
            return
        if m.cycle < copy.cycle:
            m.seq, m.step, m.cancel, m.woken = copy.seq, copy.step, False, False
        m.state, m.cycle, m.published = "SUCCEEDED", copy.cycle, True
        m.done_fence, m.fence, m.owner, m.decided, self.lease = ticket.fence, None, None, None, None
        m.before, m.discarded = None, False
        self.successes[m.cycle] = self.successes.get(m.cycle, 0) + 1

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), dead=st.booleans())
    def decide(self, data, dead):
        ticket, copy = data.draw(st.sampled_from(self.tickets))
        decision = Dead(Reason.RETRIES_EXHAUSTED) if dead else Retry(self.ladder.rungs[0])
        planned = next_copy(copy, FAILURE, decision, 1)
        decided = self.handovers.decide(copy, ticket, planned, FAILURE, decision, max_attempts=ATTEMPTS)
        if self._recreated(copy):
            self.model.fence = ticket.fence
        m = self.model
        if m.decided is not None and m.decided == copy.seq:
            expected = DecisionAnswer.ROUTE
        elif m.fence != ticket.fence or m.seq != copy.seq:
            expected = DecisionAnswer.UNCLAIMED if self._unclaimed else DecisionAnswer.REFUSED
        elif m.cancel:
            expected = DecisionAnswer.CANCELLED
            self._end_cancelled()
        else:
            expected = DecisionAnswer.OK
            m.decided, m.decision_dead, m.fence, m.lost = copy.seq, dead, None, 0
            if not dead:
                m.state = "RETRY_WAIT"
        if decided.copy is not None:
            self.pending.append((decided.copy, ticket.owner))

        assert decided.answer == expected
        if expected is DecisionAnswer.UNCLAIMED:
            self._claim_again(ticket, copy)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), until=st.sampled_from([(), ("go",), ("go", "stop")]))
    def wait(self, data, until):
        ticket, copy = data.draw(st.sampled_from(self.tickets))
        delayed, early = (step_copy(copy, "{}", seconds, 1) for seconds in (60, 0))
        step = NextStep(delayed, until, early)
        decided = self.handovers.wait(copy, ticket, step, max_attempts=ATTEMPTS)
        if self._recreated(copy):
            self.model.fence = ticket.fence
        m = self.model
        current = m.decided != copy.seq and (m.fence, m.seq) == (ticket.fence, copy.seq)
        taken = current and m.take(until)
        if m.decided == copy.seq:
            expected = DecisionAnswer.ROUTE
        elif not current:
            expected = DecisionAnswer.UNCLAIMED if self._unclaimed else DecisionAnswer.REFUSED
        elif m.cancel and m.woken:
            expected = DecisionAnswer.CANCELLED
            self._end_cancelled()
        else:
            expected = DecisionAnswer.OK
            m.woken = m.woken or m.cancel
            over = taken or m.cancel
            m.decided, m.decision_dead, m.fence, m.lost = copy.seq, False, None, 0
            m.state, m.step, m.waits_for = "QUEUED" if over else "WAITING", copy.step + 1, until
        if decided.copy is not None:
            self.pending.append((decided.copy, ticket.owner))

        assert decided.answer == expected
        if expected is DecisionAnswer.UNCLAIMED:
            self._claim_again(ticket, copy)

    @rule(name=st.sampled_from(["go", "stop"]))
    def signal(self, name):
        record, m = self.store.whole(self.task_id), self.model
        waits = record is not None and record.state is State.WAITING and name in record.waiting_for
        copy = resent_copy(record) if waits else None
        recorded = self.stores.signals.add(self.task_id, NewSignal(name, "{}", "op"), copy)
        if m is None:
            expected = SignalAnswer.MISSING
        elif m.state in TERMINAL:
            expected = SignalAnswer.TERMINAL
        else:
            m.signals.append(name)
            ends = copy is not None and m.state == "WAITING" and name in m.waits_for
            expected = SignalAnswer.SENT if ends else SignalAnswer.KEPT
            if ends:
                m.take(m.waits_for)
                m.seq = m.seq if m.decided is None else m.decided + 1
                m.state, m.decided, m.fence, m.owner, self.lease = "QUEUED", m.seq, None, None, None
        if recorded.copy is not None:
            self.pending.append((recorded.copy, ""))

        assert recorded.answer == expected

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), publish=st.booleans())
    def hand_over(self, data, publish):
        copy, owner = data.draw(st.sampled_from(self.pending))
        if publish:  # the confirm came: the copy is somewhere, whatever Redis answers afterwards
            (self.dead_letters if copy.queue == "robot.task.dlq" else self.copies).append(copy.message)
        self.handovers.hand_over(copy, owner=owner)
        m = self.model
        if m is None:
            return
        if owner and self.lease == owner:
            self.lease = None
        if m.decided != copy.message.seq - 1:
            return
        m.seq, m.published, m.decided, m.before, m.owner, m.fence = copy.message.seq, True, None, None, None, None
        if copy.queue == "robot.task.dlq":
            m.state = "DEAD_LETTERED"
        elif copy.queue == "robot.task.q":
            m.state = "QUEUED"

    @rule()
    def send_now(self):
        record, m = self.store.whole(self.task_id), self.model
        copy = record and resent_copy(record)
        if copy is None:
            return
        decided = self.handovers.send_now(copy, {State.RETRY_WAIT, State.DELAYED, State.HELD}, "sent-now", by="op")
        if m.state == "QUEUED" and m.decided is not None:
            expected = DecisionAnswer.ROUTE
        elif m.state not in {"RETRY_WAIT", "DELAYED", "HELD"}:
            expected = DecisionAnswer.REFUSED
        else:
            expected = DecisionAnswer.OK
            m.seq = m.seq if m.decided is None else m.decided + 1
            m.state, m.decided, m.fence, m.owner, self.lease = "QUEUED", m.seq, None, None, None
        if decided.copy is not None:
            self.pending.append((decided.copy, ""))

        assert decided.answer == expected

    @rule()
    def cancel(self):
        answer = self.stores.cancellations.cancel(self.task_id, by="op")
        m = self.model
        if m is None:
            expected = CancelAnswer.MISSING
        elif m.state == "CANCELLED":
            expected = CancelAnswer.CANCELLED
        elif m.state in TERMINAL:
            expected = CancelAnswer.TERMINAL
        else:
            m.cancel = True
            runs = m.state == "RUNNING" and self.lease is not None
            wakes = CancelAnswer.WAKE if m.state in {"WAITING", "RETRY_WAIT"} else CancelAnswer.REQUESTED
            undoes = m.may_undo and m.state != "HELD"
            expected = wakes if runs or undoes else self._end_cancelled()

        assert answer == expected

    def _end_cancelled(self):
        m = self.model
        m.state, m.decided, m.before, m.fence, m.owner, self.lease = "CANCELLED", None, None, None, None, None
        return CancelAnswer.CANCELLED

    # --- leases ------------------------------------------------------------------------------------
    @precondition(lambda self: self.lease)
    @rule()
    def lease_lapses(self):
        self.redis.run(("DEL", self.redis.keys.task(self.task_id).lease))
        self.lease = None

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def renew(self, data):
        ticket, copy = data.draw(st.sampled_from(self.tickets))
        renewed = self.claims.renew({ticket: (copy, ATTEMPTS)})
        expected = unclaimed = False
        if self.lease not in (None, ticket.owner):
            expected = True
        elif self._recreated(copy):
            m = self.model
            m.state, m.owner, m.fence, m.published = "RUNNING", ticket.owner, ticket.fence, True
            self.lease = ticket.owner
        elif self.lease is None:
            if self.model.owner != ticket.owner or self.model.state != "RUNNING":
                unclaimed = self._unclaimed and self.model.decided is None
                expected = not unclaimed
            else:
                self.lease = ticket.owner

        assert (renewed.lost == [ticket], renewed.unclaimed == [ticket]) == (expected, unclaimed)
        if unclaimed:
            self._claim_again(ticket, copy)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def release(self, data):
        ticket, copy = data.draw(st.sampled_from(self.tickets))
        self.claims.release(copy, ticket, "robot.task.q")
        m = self.model
        if self.lease != ticket.owner or (m is not None and m.decided is not None):
            return
        if m is not None and m.fence not in (None, ticket.fence):  # the same delivery has been claimed again
            return
        self.lease = None
        if m is not None and m.fence:
            m.fence, m.owner, m.state = None, None, "QUEUED"
            if m.cancel and not m.may_undo:
                self._end_cancelled()

    # --- dead letters -----------------------------------------------------------------------------------
    @precondition(lambda self: self.dead_letters)
    @rule(data=st.data())
    def bury(self, data):
        dead_letter = data.draw(st.sampled_from(self.dead_letters))
        burial = self.records.record(dead_letter, reason="permanent", max_attempts=ATTEMPTS)
        expected = self._buried(dead_letter)

        assert burial == expected

    def _buried(self, dead_letter):
        m = self.model
        if m is None:
            self.model = Model("QUEUED", step=dead_letter.step)
        elif (answer := self._objection(m, dead_letter)) is not None:
            return answer
        m = self.model
        m.step = dead_letter.step if m.cycle < dead_letter.cycle else m.step
        m.state, m.cycle, m.seq, m.published = "DEAD_LETTERED", dead_letter.cycle, dead_letter.seq, True
        m.decided = m.fence = m.owner = m.before = None
        m.discarded, m.dead_letters = False, 1
        return DeadLetterAnswer.OK

    def _objection(self, m, dead_letter):
        """Why the record doesn't accept a dead letter; None when it does."""
        if foreign(m, dead_letter):
            return DeadLetterAnswer.FOREIGN
        busy = DeadLetterAnswer.BUSY if self.lease and (m.cycle < dead_letter.cycle or m.decided is None) else None
        if m.cycle != dead_letter.cycle:
            return DeadLetterAnswer.OLD if m.cycle > dead_letter.cycle else busy
        if m.state in TERMINAL:
            if m.state not in BURIED:
                return DeadLetterAnswer.OLD
            m.dead_letters += 1
            return DeadLetterAnswer.AGAIN if m.dead_letters > 1 else DeadLetterAnswer.DONE
        return DeadLetterAnswer.STALE if m.seq > dead_letter.seq or m.decided == dead_letter.seq else busy

    @precondition(lambda self: self.dead_letters)
    @rule(data=st.data())
    def redrive(self, data):
        dead_letter = data.draw(st.sampled_from(self.dead_letters))
        decided = self.records.redrive(dead_letter, redriven_copy(dead_letter), by="op", max_attempts=ATTEMPTS)
        expected = self._redriven(dead_letter)
        if expected is DecisionAnswer.REFUSED:  # the record may not be dead yet: first the dead letter is recorded
            burial = self._buried(dead_letter)
            if burial in (DeadLetterAnswer.BUSY, DeadLetterAnswer.FOREIGN):
                expected = DecisionAnswer(burial.value)
            elif burial is DeadLetterAnswer.OK:
                expected = self._redriven(dead_letter)
        if decided.copy is not None:
            self.pending.append((decided.copy, ""))

        assert decided.answer == expected

    def _redriven(self, dead_letter):
        m = self.model
        if m is None:
            return DecisionAnswer.REFUSED
        if m.before is not None and m.cycle == dead_letter.cycle + 1 and m.decided is not None:
            return DecisionAnswer.ROUTE
        if m.state in BURIED and not m.discarded and (m.cycle, m.seq) == (dead_letter.cycle, dead_letter.seq):
            m.before, m.state, m.cycle, m.decided, m.lost = m.state, "SCHEDULED", m.cycle + 1, dead_letter.seq, 0
            m.dead_letters, m.cancel, m.woken = 0, False, False
            return DecisionAnswer.OK
        return DecisionAnswer.REFUSED

    @rule()
    def discard(self):
        gone = self.records.discard(self.task_id, by="op")
        m = self.model
        may = m is not None and m.state in BURIED
        if may:
            m.discarded = True

        assert gone == may

    # --- the worst ---------------------------------------------------------------------------------
    @rule()
    def redis_loses_everything(self):
        self.redis.run(("DEL", *self.redis.keys.task(self.task_id)))
        self.model, self.lease = None, None
        self.successes = {}  # what a wipe costs, as in the documentation: P3 for finished duplicates

    # --- what always holds -------------------------------------------------------------------------
    @invariant()
    def redis_and_the_model_agree(self):
        record, m = self.store.get(self.task_id), self.model
        if m is None:
            assert record is None
            return
        seen = (record.state.value, record.cycle, record.seq, record.decided_seq, record.discarded)

        assert seen == (m.state, m.cycle, m.seq, m.decided, m.discarded)
        assert record.step == m.step
        assert record.before_redrive == (m.before and State(m.before))
        assert self.claims.leased(self.task_id) == (self.lease is not None)

    @invariant()
    def the_message_is_stored_as_long_as_it_may_have_to_be_sent_again(self):
        record, m = self.store.whole(self.task_id), self.model
        over = m is not None and m.state in TERMINAL and (m.discarded or m.state not in BURIED)

        assert (record is not None and record.message is not None) == (m is not None and not over)

    @invariant()
    def a_cycle_succeeds_at_most_once(self):
        assert all(count == 1 for count in self.successes.values())

    def teardown(self):
        self.redis.run(("DEL", *self.redis.keys.task(self.task_id)))


def test_the_scripts_agree_with_the_model(settings):
    roomy = settings.model_copy(update={"lease": 3_600.0, "lost_runs": LOST_RUNS})
    stores = Stores(roomy, timeout=5.0)
    try:
        run_state_machine_as_test(
            lambda: Protocol(stores),
            settings=hypothesis_settings(
                max_examples=150,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        stores.close()
