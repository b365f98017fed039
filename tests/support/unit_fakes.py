"""Hand-written stand-ins for Redis and RabbitMQ in unit tests: they record what they are given."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from dispatch.protocol.message import Message
from dispatch.protocol.sealing import UNSEALED
from dispatch.store.client import RedisCommand
from dispatch.store.keys import RedisKeys
from dispatch.store.unsynced import Unsynced


def task_message(**headers: Any) -> Message:
    """A copy of a task, seq 3 and attempt 2, as it comes from the work queue."""
    given = {
        "id": "t-1", "task": "echo", "x-cycle": 0, "x-seq": 3, "x-attempt": 2, "x-principal": "ada",
        "x-accepted-at": 1_700_000_000_000, **headers,
    }  # fmt: skip
    return Message(b"[[{}],{},{}]", given, routing_key="robot.task.dispatch.echo")


class FakeRedis:
    """A `RedisHandle` that keeps each round trip's commands; an answer is "OK" unless the script has others.

    Args:
        answers: by script or command name: a value, or a list of which each call takes the first.
    """

    def __init__(self, **answers: Any) -> None:
        self.keys = RedisKeys("robot:")
        self.sealing = UNSEALED
        self.unsynced = Unsynced()
        self.clustered = False
        self.answers = answers
        self.trips: list[tuple[RedisCommand, ...]] = []
        self.failure: Exception | None = None

    def script(self, name: str, keys: Any, *args: str | float) -> RedisCommand:
        return (name, tuple(keys), *args)

    def vital(self, name: str, key: str, *words: str | float) -> RedisCommand:
        return (name, key, *words)

    def run(self, *commands: RedisCommand) -> list[Any]:
        if self.failure:
            raise self.failure
        self.trips.append(commands)
        return [self._answer(command[0]) for command in commands]

    gather = run

    def run_along(self, rider: Any, *commands: RedisCommand) -> list[Any]:
        assert rider is None
        return self.run(*commands)

    def in_turn(self, *lists: Sequence[RedisCommand]) -> list[list[Any]]:
        answers = iter(self.run(*itertools.chain(*lists)))
        return [list(itertools.islice(answers, len(commands))) for commands in lists]

    @property
    def commands(self) -> list[RedisCommand]:
        """Every command, in order."""
        return [command for trip in self.trips for command in trip]

    def names(self) -> list[list[str]]:
        """The commands' names, a list for each round trip."""
        return [[command[0] for command in trip] for trip in self.trips]

    def _answer(self, name: str) -> Any:
        answer = self.answers.get(name, "OK")
        return answer.pop(0) if isinstance(answer, list) else answer


class Failing:
    """A function that raises each of its errors once, then returns a value.

    Args:
        errors: in order.
        result: what it returns afterwards.
    """

    def __init__(self, *errors: BaseException, result: Any = None) -> None:
        self.errors = list(errors)
        self.result = result
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any, **_: Any) -> Any:
        self.calls.append(args)
        if self.errors:
            raise self.errors.pop(0)
        return self.result


class ManualClock:
    """A ``time`` module whose clock moves only when a test, or a sleep, moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Log:
    """A logger that keeps its lines, by level and event."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, *_, **fields: self.lines.append((level, event, fields))

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]
