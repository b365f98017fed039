"""A real worker in a process of its own, and a way to give it tasks without the gateway's HTTP layer."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import psutil
import pytest
from kombu import Connection
from pydantic import SecretStr

from celery_app import create_celery
from dispatch.broker import provision
from dispatch.broker.decoding import decode
from dispatch.broker.publisher import Publisher
from dispatch.config.settings import Settings
from dispatch.protocol import names
from dispatch.protocol.ids import child_traceparent
from dispatch.protocol.message import Message
from dispatch.protocol.record import Record, State
from dispatch.submission.submitter import Submission, Submitter
from dispatch.tasktypes.ladders import Ladders
from support import processes
from support.processes import ROOT
from support.stores import Stores
from support.waiting import eventually

#: For tests whose outcome is the same with both pools.
each_pool = pytest.mark.parametrize("pool", ["prefork", "threads"])


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a process read these settings."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DISPATCH_")}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, tuple):
            value = ",".join(value)
        variables[f"DISPATCH_{name.upper()}"] = str(value)
    return variables


@dataclasses.dataclass
class Worker:
    """A running worker."""

    process: processes.Forked | subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The pids of its pool processes."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def family(self) -> list[int]:
        """Its pid, and those of every process that it or its children started and that still is theirs."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [self.process.pid, *(each.pid for each in found if _lives(each))]

    def kill(self) -> None:
        """Kill -9 of main and children alike: the machine is gone.

        The main process is stopped first: one that runs could fork a child after its children have been listed.
        """
        self.process.send_signal(signal.SIGSTOP)
        eventually(self._is_still, 10, interval=0.002)
        if self.process.poll() is None:
            for pid in (*self.children(), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _is_still(self) -> bool:
        return self.process.poll() is not None or processes.is_stopped(self.process.pid)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended after it was listed
        return False


@contextlib.contextmanager
def running_worker(
    settings: Settings,
    *options: str,
    app: str = "celery_app",
    term: str = "SIGQUIT",
    abrupt: bool = False,
    pool: str = "prefork",
) -> Iterator[Worker]:
    """A worker on these settings, ready; ended at the end.

    Args:
        settings: the worker's.
        options: further words of its command.
        app: the module that has the Celery app.
        term: what SIGTERM means to it; ``SIGTERM`` is Celery's own, warm shutdown, which waits for what runs.
        abrupt: it is killed at the end, in a test that has seen everything by then: Celery waits two seconds and more
            for the threads and children of an idle worker. What it held comes back; so not before a look at dead letters.
        pool: ``prefork`` or ``threads``.
    """
    log = Path(settings.run_dir) / f"worker-{uuid.uuid4().hex[:6]}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    size = (
        ["--pool=threads"]
        if pool == "threads"
        else [f"--autoscale={settings.concurrency_max},{settings.concurrency_min}"]
    )
    words = ["-A", app, "worker", "-l", "INFO", *size]
    words += ["-n", f"w-{uuid.uuid4().hex[:8]}@test", *options]
    variables = {
        **environment(settings),
        "REMAP_SIGTERM": term,
        "PYTHONWARNINGS": "default",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    log.touch()
    process = processes.start("celery", words, environ=variables, output=processes.Output(log, log))
    worker = Worker(process, log)
    try:
        eventually(lambda: " ready." in worker.text() or process.poll() is not None, 30, "the worker is ready")
        assert process.poll() is None, worker.text()[-3_000:]
        yield worker
    finally:
        if abrupt:
            worker.kill()
        elif process.poll() is None:
            process.terminate()
            try:
                process.wait(settings.soft_shutdown + 15)
            except subprocess.TimeoutExpired:
                worker.kill()


class _NotingPublisher:
    """Notes what is published: of a task that has ended, Redis has the message no longer."""

    def __init__(self, publisher: Publisher, sent: dict[str, Message]) -> None:
        self._publisher = publisher
        self._sent = sent

    def publish(self, message: Message, exchange: str, routing_key: str) -> float:
        self._sent[message.task_id] = message
        return self._publisher.publish(message, exchange, routing_key)

    def ready(self) -> bool:
        return self._publisher.ready()


class Bench:
    """TaskStore, publisher and submitter on a test's settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.celery = create_celery(settings)
        self._connection = Connection(settings.broker("admin"))
        provision.declare(self._connection, self.celery.dispatch_map, settings)
        ladders = Ladders.of_types(settings.ladder, self.celery.dispatch_types.values())
        self.stores = Stores(settings, timeout=settings.store_timeout, ladders=ladders)
        self.store = self.stores.tasks
        self._sent: dict[str, Message] = {}
        self.publisher = Publisher(settings.broker("gateway"), timeout=settings.confirm_timeout, keys=settings.signing)
        self.submitter = self.submitter_of(self.stores, self.publisher)
        eventually(self.publisher.ready, 10, "the publisher is connected")

    def submitter_of(self, stores: Stores, publisher: Publisher) -> Submitter:
        """A gateway's submitter on other connections."""
        noting = _NotingPublisher(publisher, self._sent)
        sealing = self.settings.sealing
        return Submitter(
            stores.tasks,
            stores.idempotency,
            noting,
            self.celery.tasks,
            stores.ladders,
            sealing=sealing,
            shards=self.settings.shards,
        )

    def submit(
        self,
        type: str,
        payload: dict[str, Any],
        *,
        key: str | None = None,
        principal: str = "local",
        submitter: Submitter | None = None,
        delay: float = 0.0,
        **more: Any,
    ) -> str:
        """Accept a task, by another gateway's submitter if one is given, and for some seconds later; its id.

        Further arguments are those of a `Submission`.
        """
        submission = Submission(
            principal=principal,
            type=self.celery.dispatch_types[type],
            payload=payload,
            fingerprint=str(payload),
            idempotency_key=key,
            request_id="rq-test",
            traceparent=child_traceparent(None),
            wakes_at=int((time.time() + delay) * 1_000) if delay else 0,
            **more,
        )
        return (submitter or self.submitter).submit(submission).record.task_id

    def finished(self, task_id: str, timeout: float = 20) -> Record:
        """The record, once it is terminal."""

        def terminal() -> Record | None:
            record = self.store.get(task_id)
            return record if record is not None and record.state.terminal else None

        return eventually(terminal, timeout, f"task {task_id} is terminal; it is {self.store.get(task_id)}")

    def depth(self, queue: str) -> int:
        """Ready messages in a queue, exactly."""
        return self._declared(queue).message_count

    def drained(self, *queues: str, timeout: float = 20) -> None:
        """Wait until these queues are empty; the work queue and the lease queue by default."""
        for queue in queues or (names.LEASE_QUEUE, names.WORK_QUEUE):
            eventually(lambda queue=queue: self.depth(queue) == 0, timeout, f"{queue} is empty")

    def send(self, body: bytes, headers: dict[str, Any] | None = None, **properties: Any) -> None:
        """Publish anything to the task exchange, as a stranger would."""
        given = {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, **properties}
        if headers is not None:
            given["application_headers"] = headers
        self.send_raw(amqp.Message(body, **{name: value for name, value in given.items() if value is not None}))

    def send_raw(self, message: amqp.Message, routing_key: str = f"{names.ROUTING_KEY}.echo") -> None:
        """Publish a py-amqp message."""
        with Connection(self.settings.broker("admin")) as connection:
            channel = connection.default_channel
            channel.confirm_select()
            channel.basic_publish_confirm(message, names.TASK_EXCHANGE, routing_key)

    def message(self, task_id: str, **headers: Any) -> Message:
        """A task's first message, with other headers: as it was submitted here, or as it is stored."""
        message = self._sent.get(task_id) or self.store.whole(task_id).message
        return message.with_headers(**headers)

    def send_again(self, message: Message) -> None:
        """Publish a copy of a task's message to the work queue."""
        self.publisher.publish(message, names.TASK_EXCHANGE, message.routing_key)

    def dead_letters(self, queue: str = names.DEAD_QUEUE) -> list[Message]:
        """What lies in the DLQ, in its order; it stays there."""
        found = []
        with Connection(self.settings.broker("admin")) as connection:
            channel = connection.default_channel
            while (message := channel.basic_get(queue)) is not None:
                found.append(decode(channel.message_to_python(message)))
            channel.basic_recover(requeue=True)
        with contextlib.suppress(AssertionError):  # a worker may take some out at once
            eventually(lambda: self.depth(queue) >= len(found), 1, "a quorum queue takes returns later")
        return found

    def settled_dead_letters(self, count: int, timeout: float = 20) -> list[Message]:
        """As `dead_letters`, once there are so many and the janitor looks for none: what is read is hidden from it."""

        def settled() -> bool:
            return not self.stores.dead_letters.flagged() and self.depth(names.DEAD_QUEUE) == count

        eventually(settled, timeout, lambda: f"{self.depth(names.DEAD_QUEUE)} dead letters instead of {count}")
        return self.dead_letters()

    def consumers(self, queue: str) -> int:
        """Consumers of a queue, exactly."""
        return self._declared(queue).consumer_count

    def _declared(self, queue: str) -> Any:
        """A queue's figures, over one connection for all the times that a test asks; a new one if the broker is."""
        try:
            return self._connection.default_channel.queue_declare(queue, passive=True)
        except (*self._connection.connection_errors, *self._connection.channel_errors):
            self._connection.close()
            self._connection = Connection(self.settings.broker("admin"))
            return self._connection.default_channel.queue_declare(queue, passive=True)

    def purge(self, *queues: str) -> None:
        """Lose what is in these queues."""
        with Connection(self.settings.broker("admin")) as connection:
            for queue in queues:
                connection.default_channel.queue_purge(queue)

    def state(self, task_id: str) -> State | None:
        """A task's state now."""
        record = self.store.get(task_id)
        return record and record.state

    def wait_for(self, task_id: str, state: State, timeout: float = 20) -> Record:
        """The record, once it is in a state."""
        eventually(lambda: self.state(task_id) is state, timeout, lambda: f"{self.store.get(task_id)} is {state}")
        return self.store.get(task_id)

    def hops(self, task_id: str) -> list[str]:
        """The kinds of a task's hops."""
        return [hop["kind"] for hop in self.store.hops(task_id)]

    def runs(self, task_id: str) -> int:
        """How often a run of it began; what was claimed for a process that became busy is given back, and did not."""
        kinds = self.hops(task_id)
        return kinds.count("started") - kinds.count("stopped")

    def close(self) -> None:
        """Close everything."""
        self._connection.close()
        self.publisher.close()
        self.stores.close()


@contextlib.contextmanager
def open_bench(settings: Settings) -> Iterator[Bench]:
    """A `Bench` for a test."""
    made = Bench(settings)
    try:
        yield made
    finally:
        made.close()
