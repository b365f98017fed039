"""The process's Redis handle: Lua scripts and commands in one round trip, an answer or `StoreUnavailable` in bounded time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.resources
import itertools
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import redis
from redis.exceptions import NoScriptError, ResponseError

from dispatch.config import network
from dispatch.config.groups import RedisSettings
from dispatch.errors import StoreError, StoreFull, StoreUnavailable, Trouble
from dispatch.protocol.message import MAX_AHEAD
from dispatch.protocol.record import State
from dispatch.store import client as clients
from dispatch.store import faults
from dispatch.store.changes import Changes
from dispatch.store.client import RedisCommand
from dispatch.store.keys import RedisKeys
from dispatch.store.unsynced import Unsynced
from dispatch.telemetry import tracing
from dispatch.telemetry.trouble import TroubleLog

#: Seconds during which calls fail at once after Redis did not answer one: a silent Redis must not occupy every thread.
BREAK = 0.5

#: Hops kept for each task.
MAX_HOPS = 200

#: Milliseconds without a transition after which a living task's stored message lapses; no queue, rung or run lasts so long.
MESSAGE_TTL = 60 * 86_400_000

#: The one script of a task without the helpers of the others.
NEW = "accept"

#: The scripts of a task that a Redis with its memory full refuses: what they bring is new.
_REFUSED_WHEN_FULL = frozenset({NEW, "signal"})

#: How the name of a script's first part begins: the usual case, which needs no helpers.
QUICK = "_quick_"

#: What redis-py raises when there is no connection, or something else than Redis answers.
_DISCONNECTED = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.InvalidResponse)

#: Scripts whose commands accompany those of an operation, which names the span.
_ALONG = frozenset({"list_found", "spend_quota", "use", "vital"})

#: A command that a script calls.
_CALL = re.compile(r"redis\.call\('([A-Z]+)'")


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
    """Every script by name. Those of ``lua/task`` share constants and helpers, and take a task's four keys."""
    folder = importlib.resources.files("dispatch.store") / "lua"
    task = {file.name.removesuffix(".lua"): file.read_text() for file in (folder / "task").iterdir()}
    reserve, common, rights = task.pop("_reserve"), task.pop("_common"), task.pop("_rights")
    other = {file.name.removesuffix(".lua"): file.read_text() for file in (folder / "other").iterdir()}
    quick = {name.removeprefix(QUICK): task.pop(name) for name in [*task] if name.startswith(QUICK)}
    sources = dict(other)
    for name, text in task.items():
        whole = text if name == NEW else common + ("" if name in _REFUSED_WHEN_FULL else reserve) + text
        first = _checked(rights, quick[name]) if name in quick else ""
        sources[name] = _constants() + first + _checked(rights, whole)
    return {name: Script(name, source) for name, source in sources.items()}


def _checked(rights: str, source: str) -> str:
    """A script, or its first part, after the check of the user's rights to the commands that it calls."""
    commands = sorted({name for name in _CALL.findall(source) if name != "PUBLISH"})
    return f"do\nlocal COMMANDS = {{{', '.join(map(repr, commands))}}}\n{rights}end\n{source}"


def _constants() -> str:
    """What Python and Lua must agree on."""

    def table(states: list[State]) -> str:
        return f"{{{', '.join(f'{state} = true' for state in states)}}}"

    terminal = table([state for state in State if state.terminal])
    dead = table([state for state in State if state.dead])
    bounds = f"local MAX_HOPS = {MAX_HOPS}\nlocal MESSAGE_TTL = {MESSAGE_TTL}\n"
    return f"{bounds}local TERMINAL = {terminal}\nlocal DEAD = {dead}\nlocal MAX_AHEAD = {MAX_AHEAD}\n"


class CircuitBreaker:
    """Fails calls at once while Redis is known to be silent; lets one caller at a time try it again. Thread-safe."""

    def __init__(self) -> None:
        self._open_until = 0.0
        self._trouble: Trouble | None = None
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
                raise StoreUnavailable(trouble=self._trouble)
            self._open_until = now + BREAK

    def failed(self, trouble: Trouble | None = None) -> None:
        """Redis did not answer a call.

        Args:
            trouble: why.
        """
        self._trouble = trouble
        self._open_until = time.monotonic() + BREAK

    def succeeded(self) -> None:
        """Redis answered a call."""
        self._open_until = 0.0


class Rider(Protocol):
    """A command that goes along with those of an operation, for which alone nothing would wait."""

    sent: bool  #: it may have been carried out, or need not be

    def command(self) -> RedisCommand:
        """It, made when it is sent and once only: it may take along what is counted until then."""

    def answered(self, answer: Any) -> None:
        """Take its answer, before the operation goes on; may raise."""


class RedisHandle:
    """Redis for a whole process: a pool of connections, or one for all; one circuit breaker. Thread-safe; connects when used.

    Args:
        settings: where Redis is, and the prefix of every key.
        timeout: seconds for each answer, and for connecting.
        connections: how many callers Redis serves at the same time, where each has a connection; None for any number.
        share: have all callers use one connection, where that is possible.
        pace: called at the end of a wait for a message, which many may end at the same time.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        timeout: float,
        connections: int | None = None,
        share: bool = False,
        pace: Callable[[], None] = lambda: None,
    ) -> None:
        self.keys = RedisKeys(settings.redis_prefix)
        self.unsynced = Unsynced()
        self.sealing = settings.sealing  #: of what records keep of results, errors and progress
        self._scripts = scripts()
        self._by_sha = {script.sha: script for script in self._scripts.values()}
        self._taken: frozenset[str] = frozenset()  # digests that this Redis has answered to
        self._breaker = CircuitBreaker()
        self._troubles = TroubleLog()
        url = settings.redis_url.get_secret_value()
        self._where = network.shown(url)
        self._client = clients.connect(url, timeout, settings.redis_tls, share=share)
        self._shared = self._client.shared
        self.clustered = self._client.clustered  #: a script can have the keys of one slot only
        self._turns: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if connections is not None and not self._shared:
            self._turns = threading.BoundedSemaphore(connections)
        self._changes = Changes(self._client, timeout, pace)

    def script(self, name: str, keys: Sequence[str], *args: str | float) -> RedisCommand:
        """A script's run, for `run`."""
        return self._scripts[name](keys, *args)

    def vital(self, name: str, key: str, *words: str | float) -> RedisCommand:
        """A command that also a Redis with its memory full carries out, for `run`; its key has no time to live."""
        return self.script("vital", [key], name, *words)

    def run(self, *commands: RedisCommand) -> list[Any]:
        """Run commands in order, in one round trip; in a Redis Cluster, in one each.

        Args:
            commands: each a tuple of its words.

        Returns:
            Their answers, in order.

        Raises:
            StoreFull: Redis has no memory left for a command.
            StoreUnavailable: Redis did not answer: what was written is unknown.
            StoreError: Redis refused a command.
        """
        return self._send(self._client.run, commands)

    def run_along(self, rider: Rider | None, *commands: RedisCommand) -> list[Any]:
        """As `run`, with a command of another purpose in front; where Redis refuses a command, without it.

        Args:
            rider: the command.
            commands: each safe to repeat.

        Returns:
            The answers to the others.
        """
        if rider is None or rider.sent:
            return self.run(*commands)
        rider.sent = True
        try:
            answer, *answers = self.run(rider.command(), *commands)
        except StoreUnavailable:
            raise
        except StoreError:
            return self.run(*commands)
        rider.answered(answer)
        return answers

    def gather(self, *commands: RedisCommand) -> list[Any]:
        """Run commands whose order does not matter; as `run` otherwise, and one round trip in a cluster, too."""
        return self._send(self._client.gather, commands)

    def in_turn(self, *lists: Sequence[RedisCommand]) -> list[list[Any]]:
        """Run lists of commands, all of each after all of the one before, whose keys differ; as `run` otherwise.

        In a Redis Cluster each list is one round trip, in which its commands have no order.

        Args:
            lists: each of commands that depend on those before; empty ones cost nothing.

        Returns:
            Their answers, a list for each.
        """
        if self._client.clustered:
            return [self.gather(*commands) if commands else [] for commands in lists]
        answers = iter(self.run(*itertools.chain.from_iterable(lists)))
        return [list(itertools.islice(answers, len(commands))) for commands in lists]

    def listening(
        self, channel: str, over: Callable[[], bool] = lambda: False
    ) -> contextlib.AbstractContextManager[Callable[[float], bool]]:
        """Subscribe to a channel; all channels share one connection.

        Args:
            channel: its name.
            over: called about once a second, on another thread; True ends the wait as a message does.

        Returns:
            A context with a function that waits some seconds for a message, and returns whether one came, or may have
            been missed.

        Raises:
            StoreUnavailable: on entering: Redis did not answer.
        """
        return self._changes.listening(channel, over)

    def wake(self) -> None:
        """Have every waiter look at what it waits for."""
        self._changes.wake()

    def memory(self) -> list[dict[str, Any]]:
        """INFO memory of each writable Redis node.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return self._call(functools.partial(self._client.info, "memory"))

    def run_ids(self) -> frozenset[str]:
        """Of each writable Redis node, what names this run of its server.

        Raises:
            StoreUnavailable: Redis did not answer.
        """
        return frozenset(node["run_id"] for node in self._call(functools.partial(self._client.info, "server")))

    def close(self) -> None:
        """Close every connection."""
        self._changes.close()
        self._client.close()

    def _send(self, send: Callable[[Sequence[RedisCommand]], list[Any]], commands: Sequence[RedisCommand]) -> list[Any]:
        call = functools.partial(self._with_scripts, send, commands)
        if self._shared and not tracing.enabled():
            return self._ask(call)
        with self._span(commands):
            return self._call(call)

    def _call(self, call: Callable[[], list[Any]]) -> list[Any]:
        # Without a deadline: once Redis does not answer one of those ahead, the breaker fails all the others at once.
        with self._turns:
            return self._ask(call)

    def _ask(self, call: Callable[[], list[Any]]) -> list[Any]:
        self._breaker.enter()
        try:
            answers = call()
        except (*_DISCONNECTED, ResponseError) as exc:
            raise self._error(exc) from exc
        self._breaker.succeeded()
        self._troubles.worked()
        return answers

    def _error(self, exc: redis.RedisError) -> StoreError:
        trouble = faults.trouble(exc, self._where)
        if trouble is None:
            return StoreError(f"Redis refused a command: {exc}")
        self._troubles.met(trouble)
        if isinstance(exc, _DISCONNECTED):
            self._taken = frozenset()
            self.unsynced.failed()
            self._breaker.failed(trouble)
        else:  # a refusal is an answer
            self._breaker.succeeded()
        full = isinstance(exc, redis.exceptions.OutOfMemoryError)
        return StoreFull(trouble=trouble) if full else StoreUnavailable(trouble=trouble)

    def _with_scripts(
        self, send: Callable[[Sequence[RedisCommand]], list[Any]], commands: Sequence[RedisCommand]
    ) -> list[Any]:
        # The first run of a script brings its source: one that Redis lacks would be carried out after what stands behind it.
        new = {command[1] for command in commands if command[0] == "EVALSHA"} - self._taken
        answers = send(self._with_sources(commands, new) if new else commands)
        for answer in answers:
            if isinstance(answer, Exception):
                break
        else:
            if new:
                self._taken |= new
            return answers
        # Redis lost its scripts meanwhile, or another node is the master now: this time they go along. They alone: the
        # others have been carried out, and a death that is recorded twice would count as two dead letters.
        missing = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        again = send([self._with_source(commands[number]) for number in missing]) if missing else []
        for number, answer in zip(missing, again, strict=True):
            answers[number] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _with_sources(self, commands: Sequence[RedisCommand], new: set[Any]) -> list[RedisCommand]:
        """The first run of each new script with its source."""
        new, sent = set(new), []
        for command in commands:
            first = command[0] == "EVALSHA" and command[1] in new
            sent.append(self._with_source(command) if first else command)
            new.discard(command[1] if first else None)
        return sent

    def _with_source(self, command: RedisCommand) -> RedisCommand:
        name, *words = command
        return ("EVAL", self._by_sha[words[0]].source, *words[1:]) if name == "EVALSHA" else command

    def _span(self, commands: Sequence[RedisCommand]) -> contextlib.AbstractContextManager[Any]:
        """Named for the scripts but for those that go along with others, or for the first command where there is none."""
        if not tracing.enabled():
            return tracing.NO_SPAN
        scripts = [self._by_sha[command[1]].name if command[0] == "EVALSHA" else "" for command in commands]
        names = [name for name in scripts if name and name not in _ALONG]
        if not names:
            own = [str(command[0]) for name, command in zip(scripts, commands, strict=True) if not name]
            names = own[:1] or scripts
        attributes = {
            "db.system.name": "redis",
            "db.operation.name": " ".join(names),
            "db.operation.batch.size": len(commands),
        }
        return tracing.detail(f"redis {' '.join(names)}", attributes)
