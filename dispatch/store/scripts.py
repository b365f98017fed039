"""Redis, spoken to in whole transitions: Lua scripts, one round trip, an answer or `StoreUnavailable` in bounded time."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from dispatch.config.settings import Settings
from dispatch.errors import StoreError, StoreUnavailable
from dispatch.store import client as redisclient
from dispatch.store.client import RedisCommand
from dispatch.telemetry import tracing

#: Seconds during which calls fail at once after Redis did not answer one: a silent Redis must not eat up threads.
BREAK = 0.5

#: What Redis says while it cannot serve, as redis-py calls it; everything else it refuses is our mistake.
_AWAY = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)

#: The same where redis-py has no name for it; in a pipeline, it puts the command before what Redis said.
_AWAY_WORDS = ("MISCONF ", "BUSY ", "LOADING ", "NOREPLICAS ")
_QUOTED = " of pipeline caused error: "


def _source(name: str) -> str:
    folder = importlib.resources.files("dispatch.store") / "lua"
    other = folder / "other" / f"{name}.lua"
    if other.is_file():
        return other.read_text()
    return (folder / "task" / "_common.lua").read_text() + (folder / "task" / f"{name}.lua").read_text()


class Script:
    """A Lua script and the digest Redis knows it by.

    Args:
        name: its file in ``dispatch/store/lua``, without the ending.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _source(name)
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], *args: str | float) -> RedisCommand:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


class Scripts:
    """A thread-safe Redis connection for transitions.

    Args:
        settings: where Redis is.
        timeout: seconds for each answer, and for connecting.
        names: the scripts that are used over this connection.
    """

    def __init__(self, settings: Settings, *, timeout: float, names: Sequence[str]) -> None:
        self._scripts = {name: Script(name) for name in names}
        self._names = {script.sha: name for name, script in self._scripts.items()}
        self._open_until = 0.0
        self._lock = threading.Lock()
        self._sources = {script.sha: script.source for script in self._scripts.values()}
        self._client = redisclient.connect(settings.redis_url.get_secret_value(), timeout)

    def step(self, name: str, keys: Sequence[str], *args: str | float) -> RedisCommand:
        """A script's run, for `run`."""
        return self._scripts[name](keys, *args)

    def run(self, *steps: RedisCommand) -> list[Any]:
        """Run commands in order, in one round trip; in a Redis Cluster, in one each.

        Args:
            steps: commands, each a tuple of its words.

        Returns:
            Their answers, in order.

        Raises:
            StoreUnavailable: Redis did not answer: what was written is unknown.
            StoreError: Redis refused a command.
        """
        with self._span(steps):
            return self._ask(lambda: self._with_scripts(self._client.run, steps))

    def gather(self, *steps: RedisCommand) -> list[Any]:
        """Run commands whose order does not matter; as `run` otherwise, and one round trip in a cluster, too."""
        with self._span(steps):
            return self._ask(lambda: self._with_scripts(self._client.gather, steps))

    @contextlib.contextmanager
    def listening(self, channel: str) -> Iterator[Callable[[float], bool]]:
        """Listen to a channel.

        Args:
            channel: its name.

        Yields:
            A function that waits for a message, some seconds at most, and says whether one came.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        try:
            with self._client.pubsub() as subscription:
                subscription.subscribe(channel)
                subscription.get_message(timeout=BREAK)  # the server's word that it listens: later changes are heard
                yield lambda seconds: _next_message(subscription, seconds)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
            raise StoreUnavailable from exc

    def memory(self) -> list[dict[str, Any]]:
        """The word about its memory of each Redis that takes writes.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return self._ask(self._client.memory)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _ask(self, call: Callable[[], list[Any]]) -> list[Any]:
        self._enter()
        try:
            answers = call()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
            self._open_until = time.monotonic() + BREAK
            raise StoreUnavailable from exc
        except ResponseError as exc:
            if isinstance(exc, _AWAY) or str(exc).rpartition(_QUOTED)[2].startswith(_AWAY_WORDS):
                raise StoreUnavailable from exc
            raise StoreError(f"Redis refused a command: {exc}") from exc
        self._open_until = 0.0
        return answers

    def _with_scripts(
        self, send: Callable[[Sequence[RedisCommand]], list[Any]], steps: Sequence[RedisCommand]
    ) -> list[Any]:
        try:
            return send(steps)
        except NoScriptError:
            # Redis restarted without its scripts, or another one is master now: this time they go along. Each step is
            # safe to say twice, so the whole list goes again.
            return send([self._spelt_out(step) for step in steps])

    def _spelt_out(self, step: RedisCommand) -> RedisCommand:
        command, *words = step
        return ("EVAL", self._sources[words[0]], *words[1:]) if command == "EVALSHA" else step

    def _span(self, steps: Sequence[RedisCommand]) -> contextlib.AbstractContextManager[Any]:
        """Named for the transitions, or for the commands where there is none."""
        if not tracing.enabled():
            return tracing.NO_SPAN
        names = [self._names[step[1]] for step in steps if step[0] == "EVALSHA"] or [str(step[0]) for step in steps[:1]]
        told = {"db.system.name": "redis", "db.operation.name": " ".join(names), "db.operation.batch.size": len(steps)}
        return tracing.detail(f"redis {' '.join(names)}", told)

    def _enter(self) -> None:
        """Fail at once while Redis is known to be silent; let one caller try it again."""
        if not self._open_until:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                raise StoreUnavailable
            self._open_until = now + BREAK


def pairs(answer: Any) -> list[tuple[str, float]]:
    """Members and scores of an answer WITHSCORES: RESP2 has a flat list, RESP3 pairs."""
    if answer and isinstance(answer[0], list | tuple):
        return [(member, float(score)) for member, score in answer]
    return [(member, float(score)) for member, score in zip(answer[::2], answer[1::2], strict=True)]


def words(entries: Iterable[tuple[str, float]]) -> list[str | float]:
    """Pairs in a row, as scripts take them."""
    return [word for pair in entries for word in pair]


def _next_message(subscription: redis.client.PubSub, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if subscription.get_message(timeout=left) is not None:
            return True
    return False
