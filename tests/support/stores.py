"""Everything that a process keeps in Redis, on one handle."""

from dispatch.config.settings import Settings
from dispatch.control.send_now import SendNow
from dispatch.control.service import ControlService
from dispatch.deadletters.bulk import BulkRedrives
from dispatch.deadletters.janitor import Janitor
from dispatch.deadletters.service import DeadLetterService
from dispatch.deadletters.walk_lock import WalkLock
from dispatch.maintenance.sweeper import Sweeper
from dispatch.store.audit import AuditLog
from dispatch.store.cancellations import Cancellations
from dispatch.store.claims import Claims
from dispatch.store.dead_letters import DeadLetterRecords
from dispatch.store.handovers import Handovers
from dispatch.store.idempotency import IdempotencyKeys
from dispatch.store.reminders import Reminders
from dispatch.store.scripts import RedisHandle
from dispatch.store.signals import Signals
from dispatch.store.tasks import TaskStore
from dispatch.tasktypes.ladders import Ladders


class Stores:
    """The parts of ``dispatch.store``, and what is made of them.

    Args:
        settings: the test's.
        timeout: seconds for each Redis answer.
        ladders: the whole ladder for every type by default.
    """

    def __init__(self, settings: Settings, *, timeout: float = 1.0, ladders: Ladders | None = None) -> None:
        self.settings = settings
        self.redis = RedisHandle(settings, timeout=timeout)
        self.ladders = ladders or Ladders(settings.ladder)
        self.tasks = TaskStore(self.redis, settings)
        self.idempotency = IdempotencyKeys(self.redis, settings)
        self.claims = Claims(self.redis, settings)
        self.handovers = Handovers(self.redis)
        self.cancellations = Cancellations(self.redis, settings, ["robot.clean"])
        self.dead_letters = DeadLetterRecords(self.redis, settings)
        self.reminders = Reminders(self.redis)
        self.signals = Signals(self.redis)
        self.bulk = BulkRedrives(self.redis)
        self.audit = AuditLog(self.redis, settings)

    def lock(self) -> WalkLock:
        """A walker's lock on the DLQ."""
        return WalkLock(self.redis)

    def service(self, publisher) -> DeadLetterService:
        """The operator's verbs on dead letters."""
        return DeadLetterService(
            self.tasks,
            self.dead_letters,
            publisher,
            self.ladders,
            sealing=self.settings.sealing,
            shards=self.settings.shards,
        )

    def send_now(self, publisher) -> SendNow:
        """What ends a task's wait."""
        return SendNow(self.tasks, self.handovers, publisher, self.settings.sealing)

    def control(self, publisher) -> ControlService:
        """The operator's verbs on tasks that have not ended."""
        return ControlService(self.tasks, self.cancellations, self.send_now(publisher))

    def sweeper(
        self, publisher, settings: Settings | None = None, ended=lambda _: None, steady=lambda _: True
    ) -> Sweeper:
        """A sweeper that publishes with one publisher, and what it calls with tasks that were cancelled."""
        return Sweeper(
            tasks=self.tasks,
            claims=self.claims,
            handovers=self.handovers,
            dead_letters=self.dead_letters,
            reminders=self.reminders,
            send=lambda copy: publisher.publish(copy.message, copy.exchange, copy.routing_key),
            settings=settings or self.settings,
            steady=steady,
            ended=ended,
        )

    def janitor(self, publisher) -> Janitor:
        """A janitor that publishes with one publisher."""
        return Janitor(
            self.redis,
            self.settings.broker("replay"),
            self.service(publisher),
            tasks=self.tasks,
            records=self.dead_letters,
            ladders=self.ladders,
            audit=self.audit.add,
            interval=1.0,
            keys=self.settings.signing,
        )

    def close(self) -> None:
        """Close every connection."""
        self.redis.close()
