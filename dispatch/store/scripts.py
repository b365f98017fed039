"""The process's Redis handle: Lua scripts and commands in one round trip, an answer or `StoreUnavailable` in bounded time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from dispatch.config import tls
from dispatch.config.groups import RedisSettings
from dispatch.errors import StoreError, StoreUnavailable
from dispatch.protocol.record import State
from dispatch.store import client as clients
from dispatch.store.client import RedisCommand
from dispatch.store.keys import RedisKeys
from dispatch.telemetry import logger, tracing

log = logger(__name__)

#: Seconds during which calls fail at once after Redis did not answer one: a silent Redis must not occupy every thread.
BREAK = 0.5

#: Hops kept for each task.
MAX_HOPS = 200

#: Errors of a Redis that cannot serve at the moment, as redis-py names them; every other refusal is our mistake.
_UNAVAILABLE = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)

#: The same where redis-py has no class for it; in a pipeline, it puts the command before Redis's error.
_UNAVAILABLE_PREFIXES = ("MISCONF ", "BUSY ", "LOADING ", "NOREPLICAS ")
_PIPELINE_ERROR = " of pipeline caused error: "


class Script:
    """A Lua script and the digest Redis knows it by.

    Args:
        name: its file in ``store/lua/task`` or ``store/lua/other``, without the ending.
        source: its text.
    """

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[str], *args: str | float) -> RedisCommand:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)


@functools.cache
def scripts() -> Mapping[str, Script]:
    """Every script by name. Those of ``lua/task`` share constants and helpers, and take a task's three keys."""
    folder = importlib.resources.files("dispatch.store") / "lua"
    task = {file.name.removesuffix(".lua"): file.read_text() for file in (folder / "task").iterdir()}
    prelude = _constants() + task.pop("_common")
    other = {file.name.removesuffix(".lua"): file.read_text() for file in (folder / "other").iterdir()}
    sources = {**{name: prelude + text for name, text in task.items()}, **other}
    return {name: Script(name, source) for name, source in sources.items()}


def _constants() -> str:
    """What Python and Lua must agree on."""

    def table(states: list[State]) -> str:
        return f"{{{', '.join(f'{state} = true' for state in states)}}}"

    terminal = table([state for state in State if state.terminal])
    dead = table([state for state in State if state.dead])
    return f"local MAX_HOPS = {MAX_HOPS}\nlocal TERMINAL = {terminal}\nlocal DEAD = {dead}\n"


class CircuitBreaker:
    """Fails calls at once while Redis is known to be silent; lets one caller at a time try it again. Thread-safe."""

    def __init__(self) -> None:
        self._open_until = 0.0
        self._refusal = ""
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Before a call.

        Raises:
            StoreUnavailable: Redis did not answer a moment ago.
        """
        if not self._open_until:
            return
        with self._lock:
            now = time.monotonic()
            if now < self._open_until:
                raise _unavailable(self._refusal)
            self._open_until = now + BREAK

    def failed(self, refusal: str = "") -> None:
        """Redis did not answer a call.

        Args:
            refusal: why TLS failed, where that is the reason; logged when it changes.
        """
        if refusal and refusal != self._refusal:
            log.warning("no connection to Redis", reason=refusal)
        self._refusal = refusal
        self._open_until = time.monotonic() + BREAK

    def succeeded(self) -> None:
        """Redis answered a call."""
        if self._refusal:
            log.info("connected to Redis again")
            self._refusal = ""
        self._open_until = 0.0


class RedisHandle:
    """Redis for a whole process: one connection pool, one circuit breaker. Thread-safe; connects at the first use.

    Args:
        settings: where Redis is, and the prefix of every key.
        timeout: seconds for each answer, and for connecting.
    """

    def __init__(self, settings: RedisSettings, *, timeout: float) -> None:
        self.keys = RedisKeys(settings.redis_prefix)
        self._scripts = scripts()
        self._by_sha = {script.sha: script for script in self._scripts.values()}
        self._breaker = CircuitBreaker()
        self._client = clients.connect(settings.redis_url.get_secret_value(), timeout, settings.redis_tls)

    def script(self, name: str, keys: Sequence[str], *args: str | float) -> RedisCommand:
        """A script's run, for `run`."""
        return self._scripts[name](keys, *args)

    def run(self, *commands: RedisCommand) -> list[Any]:
        """Run commands in order, in one round trip; in a Redis Cluster, in one each.

        Args:
            commands: each a tuple of its words.

        Returns:
            Their answers, in order.

        Raises:
            StoreUnavailable: Redis did not answer: what was written is unknown.
            StoreError: Redis refused a command.
        """
        with self._span(commands):
            return self._call(lambda: self._with_scripts(self._client.run, commands))

    def gather(self, *commands: RedisCommand) -> list[Any]:
        """Run commands whose order does not matter; as `run` otherwise, and one round trip in a cluster, too."""
        with self._span(commands):
            return self._call(lambda: self._with_scripts(self._client.gather, commands))

    @contextlib.contextmanager
    def listening(self, channel: str) -> Iterator[Callable[[float], bool]]:
        """Subscribe to a channel.

        Args:
            channel: its name.

        Yields:
            A function that waits some seconds for a message, and returns whether one came.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        try:
            with self._client.pubsub() as subscription:
                subscription.subscribe(channel)
                subscription.get_message(timeout=BREAK)  # the server's confirmation: later changes are delivered
                yield lambda seconds: _next_message(subscription, seconds)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
            raise StoreUnavailable from exc

    def memory(self) -> list[dict[str, Any]]:
        """INFO memory of each writable Redis node.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return self._call(self._client.memory)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _call(self, call: Callable[[], list[Any]]) -> list[Any]:
        self._breaker.enter()
        try:
            answers = call()
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as exc:
            refusal = tls.refusal(exc)
            self._breaker.failed(refusal)
            raise _unavailable(refusal) from exc
        except ResponseError as exc:
            if isinstance(exc, _UNAVAILABLE) or str(exc).rpartition(_PIPELINE_ERROR)[2].startswith(
                _UNAVAILABLE_PREFIXES
            ):
                raise StoreUnavailable from exc
            raise StoreError(f"Redis refused a command: {exc}") from exc
        self._breaker.succeeded()
        return answers

    def _with_scripts(
        self, send: Callable[[Sequence[RedisCommand]], list[Any]], commands: Sequence[RedisCommand]
    ) -> list[Any]:
        try:
            return send(commands)
        except NoScriptError:
            # Redis restarted without its scripts, or another node is the master now: this time they go along. Each
            # command is safe to repeat, so the whole list goes again.
            return send([self._with_source(command) for command in commands])

    def _with_source(self, command: RedisCommand) -> RedisCommand:
        name, *words = command
        return ("EVAL", self._by_sha[words[0]].source, *words[1:]) if name == "EVALSHA" else command

    def _span(self, commands: Sequence[RedisCommand]) -> contextlib.AbstractContextManager[Any]:
        """Named for the scripts, or for the first command where there is none."""
        if not tracing.enabled():
            return tracing.NO_SPAN
        names = [self._by_sha[command[1]].name for command in commands if command[0] == "EVALSHA"]
        names = names or [str(command[0]) for command in commands[:1]]
        attributes = {
            "db.system.name": "redis",
            "db.operation.name": " ".join(names),
            "db.operation.batch.size": len(commands),
        }
        return tracing.detail(f"redis {' '.join(names)}", attributes)


def _unavailable(refusal: str) -> StoreUnavailable:
    exc = StoreUnavailable(f"Redis: {refusal}") if refusal else StoreUnavailable()
    exc.refusal = refusal
    return exc


def _next_message(subscription: redis.client.PubSub, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if subscription.get_message(timeout=left) is not None:
            return True
    return False
