"""Which workers there are: each one says so every few seconds, and whoever has fallen silent is not listed any more.

In Redis, since the gateway's RabbitMQ user may write to the task exchange and nothing else: it could not ask them.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dispatch.config.settings import Settings
from dispatch.errors import StoreError
from dispatch.protocol.ids import timestamp
from dispatch.store.keys import roster_key
from dispatch.store.scripts import Scripts
from dispatch.telemetry import logger

log = logger("dispatch.roster")

#: Seconds between two signs of life, and after which a silent worker counts as gone.
BEAT, GONE = 3.0, 15.0


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as it was when it last said so."""

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
    """Reads and writes the list. Thread-safe.

    Args:
        settings: where Redis is.
        timeout: seconds for each answer.
    """

    def __init__(self, settings: Settings, *, timeout: float) -> None:
        self._key = roster_key(settings.redis_prefix)
        self._redis = Scripts(settings, timeout=timeout, names=("roster_key",))

    def beat(self, entry: WorkerInfo) -> None:
        """A sign of life.

        Raises:
            StoreError: Redis did not take it.
        """
        said = {name: value for name, value in dataclasses.asdict(entry).items() if name != "seen_at"}
        self._say(entry.name, json.dumps(said))

    def leave(self, name: str) -> None:
        """The worker stops.

        Raises:
            StoreError: Redis did not take it; it falls silent instead.
        """
        self._say(name, "")

    def present(self) -> list[WorkerInfo]:
        """The workers that were heard of lately, by name.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        clock, raw = self._redis.run(("TIME",), ("HGETALL", self._key))
        now = int(clock[0]) * 1_000 + int(clock[1]) // 1_000
        texts = raw.values() if isinstance(raw, Mapping) else raw[1::2]
        found = [entry for entry in map(_entry, texts) if entry is not None and now - entry.seen_at <= GONE * 1_000]
        return sorted(found, key=lambda entry: entry.name)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _say(self, name: str, text: str) -> None:
        self._redis.run(self._redis.step("roster_key", [self._key], name, text, int(GONE * 4_000)))


def _entry(text: str) -> WorkerInfo | None:
    """What a worker of this release or another has written, as far as it says what we show."""
    try:
        said = json.loads(text)
        said["seen_at"] = said["seenAt"]
        return WorkerInfo(**{field.name: said[field.name] for field in dataclasses.fields(WorkerInfo)})
    except (ValueError, TypeError, KeyError):
        return None


class Heartbeat:
    """Gives a worker's signs of life on a thread of its own.

    Args:
        settings: the worker's.
        look: how the worker is now.
    """

    def __init__(self, settings: Settings, look: Callable[[], WorkerInfo]) -> None:
        self._roster = WorkerRegistry(settings, timeout=1.0)
        self._look = look
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the list, as far as Redis answers."""
        self._stop.set()
        self._thread.join(2 * BEAT)
        self._roster.close()

    def _run(self) -> None:
        name = self._look().name
        while not self._stop.is_set():
            self._try(lambda: self._roster.beat(self._look()))
            self._stop.wait(BEAT)
        self._try(lambda: self._roster.leave(name))

    def _try(self, say: Callable[[], None]) -> None:
        try:
            say()
        except StoreError as exc:
            log.debug("no sign of life", reason=str(exc))
        except Exception as exc:  # noqa: BLE001 - a worker that can't be looked at once must not fall silent for good
            log.warning("no sign of life", reason=repr(exc))
