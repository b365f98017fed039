"""The registry of workers: each writes a heartbeat every few seconds; a silent one is not listed any more.

In Redis, since the gateway's RabbitMQ user may write to the task exchange and nothing else: it could not ask the workers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from dispatch.protocol.ids import timestamp
from dispatch.store.scripts import RedisHandle

#: Seconds after which a silent worker counts as gone.
GONE = 15.0


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as of its last heartbeat."""

    name: str
    host: str
    pid: int  #: of its main process
    version: str
    processes: int
    active: int  #: tasks that run
    reserved: int  #: deliveries in hand, those that run included
    done: Mapping[str, int]  #: deliveries since its start, by task type
    started_at: int  #: epoch milliseconds, by the worker's clock
    seen_at: int = 0  #: epoch milliseconds, by Redis's clock

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
            "version": self.version,
            "processes": self.processes,
            "active": self.active,
            "reserved": self.reserved,
            "done": dict(self.done),
            "startedAt": timestamp(self.started_at),
            "seenAt": timestamp(self.seen_at),
        }


class WorkerRegistry:
    """Reads and writes the registry. Thread-safe.

    Args:
        redis: the process's handle.
    """

    def __init__(self, redis: RedisHandle) -> None:
        self._redis = redis

    def beat(self, worker: WorkerInfo) -> None:
        """Record a heartbeat.

        Raises:
            StoreError: Redis did not take it.
        """
        fields = {name: value for name, value in dataclasses.asdict(worker).items() if name != "seen_at"}
        self._write(worker.name, json.dumps(fields))

    def leave(self, name: str) -> None:
        """Remove a worker that stops.

        Raises:
            StoreError: Redis did not take it; the worker falls silent instead.
        """
        self._write(name, "")

    def present(self) -> list[WorkerInfo]:
        """The workers with a recent heartbeat, by name.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        clock, raw = self._redis.run(("TIME",), ("HGETALL", self._redis.keys.workers))
        now = int(clock[0]) * 1_000 + int(clock[1]) // 1_000
        texts = raw.values() if isinstance(raw, Mapping) else raw[1::2]
        workers = [worker for worker in map(_parse, texts) if worker is not None]
        return sorted(
            (worker for worker in workers if now - worker.seen_at <= GONE * 1_000), key=lambda each: each.name
        )

    def _write(self, name: str, info: str) -> None:
        self._redis.run(self._redis.script("heartbeat", [self._redis.keys.workers], name, info, int(GONE * 4_000)))


def _parse(text: str) -> WorkerInfo | None:
    """A heartbeat of this release or another, as far as it has the fields that we show."""
    try:
        fields = json.loads(text)
        fields["seen_at"] = fields["seenAt"]
        return WorkerInfo(**{field.name: fields[field.name] for field in dataclasses.fields(WorkerInfo)})
    except (ValueError, TypeError, KeyError):
        return None
