"""One task and every transition of it, against a real Redis."""

import redis

from dispatch.protocol.copies import next_copy, step_copy
from dispatch.protocol.dead_letters import Reason
from dispatch.protocol.ids import new_task_id
from dispatch.protocol.message import Message
from dispatch.protocol.retry import Dead, Failure, FailureKind, Retry
from dispatch.store.claims import ClaimAnswer, Ticket
from dispatch.store.handovers import NextStep
from support.stores import Stores

FAILURE = Failure(FailureKind.RETRYABLE, "boom", "it broke")


class Case:
    """One task and every transition of it."""

    def __init__(self, settings):
        self.settings = settings
        self.stores = Stores(settings)
        self.claims, self.handovers, self.store = self.stores.claims, self.stores.handovers, self.stores.tasks
        self.dead_letters = self.stores.dead_letters
        self.redis = redis.Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
        self.prefix = settings.redis_prefix
        self.message = Message(
            b'[[{"message":"x"}],{},{}]',
            {
                "id": new_task_id(), "task": "echo", "x-cycle": 0, "x-seq": 0, "x-attempt": 1, "x-principal": "ada",
                "traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "x-accepted-at": 1_700_000_000_000, "x-request-id": "rq",
            },
            routing_key="robot.task.dispatch.echo",
        )  # fmt: skip
        self.task_id = self.message.task_id
        self._owners = 0

    def accept(self):
        self.store.accept(self.message, max_attempts=4, idempotency_key=None)
        self.store.mark_published(self.message, queue="q", max_attempts=4, idempotency_key=None)

    def copy(self, **headers):
        names = {"seq": "x-seq", "cycle": "x-cycle", "attempt": "x-attempt"}
        return self.message.with_headers(**{names[name]: value for name, value in headers.items()})

    def ticket(self, owner=None):
        self._owners += 1
        return Ticket(owner or f"owner-{self._owners}", f"fence-{self._owners}", "w@test")

    def claim(self, message=None, ticket=None):
        return self.claims.claim(message or self.message, ticket or self.ticket(), 4)

    def run(self, message=None):
        ticket = self.ticket()
        assert self.claim(message, ticket).answer is ClaimAnswer.RUN
        return ticket

    def lapse(self):
        """The lease is over, as if its time had passed."""
        self.redis.delete(f"{self.prefix}claim:{{{self.task_id}}}")

    def wipe(self):
        for key in self.redis.scan_iter(f"{self.prefix}*"):
            self.redis.delete(key)

    def decide(self, ticket, decision=None, message=None):
        message = message or self.message
        decision = decision or Retry(self.settings.ladder.rungs[0])
        copy = next_copy(message, FAILURE, decision, 1)
        return self.handovers.decide(message, ticket, copy, FAILURE, decision, max_attempts=4)

    def wait(self, ticket, message=None, until=(), seconds=60, checkpoint="{}"):
        """A step ends in a wait, which is not handed over yet."""
        message = message or self.message
        copies = [step_copy(message, checkpoint, delay, 1) for delay in (seconds, 0)]
        return self.handovers.wait(message, ticket, NextStep(copies[0], until, copies[1]), max_attempts=4)

    def die(self, message=None):
        """An attempt fails for good; the dead letter that lies in the DLQ."""
        message = message or self.message
        ticket = self.run(message)
        copy = self.decide(ticket, Dead(Reason.PERMANENT), message).copy
        self.handovers.hand_over(copy, owner=ticket.owner)
        return copy.message

    def record(self):
        return self.store.get(self.task_id)

    def listed(self):
        return [record.task_id for record in self.dead_letters.list().items]

    def kinds(self):
        return [hop["kind"] for hop in self.store.hops(self.task_id)]

    def close(self):
        self.stores.close()
        self.redis.close()
