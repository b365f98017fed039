"""HTTP load at a given rate, and tasks that are followed to their end; run as a process of its own.

::

    python -m bench.harness.load open URL RATE SECONDS [READS]      tasks at a rate; latency from the time that was due
    python -m bench.harness.load fill URL COUNT CONNECTIONS PAYLOAD  tasks as fast as they are accepted
    python -m bench.harness.load follow URL RATE COUNT              each followed by a long poll to its end

The outcome is one JSON object on standard output.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from bench.harness import programs
from bench.harness.errors import BenchmarkFailed
from bench.harness.statistics import percentile

MESSAGE = "x" * 200  #: the payload's, of every benchmark

#: Seconds after its POST at which a task's status is read.
_READ_AFTER = 1.0

#: Seconds for one answer.
_ANSWER = 30.0

#: Seconds that a long poll asks for, as often as needed.
_WAIT = 5

#: Connections of the load at a rate.
_CONNECTIONS = 64


def body(payload: Mapping[str, Any] | None = None) -> str:
    """The body of a submission.

    Args:
        payload: fields of an `echo` besides its message.
    """
    return json.dumps({"type": "echo", "payload": {"message": MESSAGE, **(payload or {})}})


class HttpPool:
    """Connections to one server that are kept open; one request at a time on each.

    Args:
        url: of the server.
        connections: at most.
    """

    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        self._opened: list[asyncio.StreamWriter] = []
        for _ in range(connections):
            self._idle.put_nowait(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._opened:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def post(self, path: str, text: str) -> tuple[int, bytes]:
        """POST JSON; the status and the answer's body."""
        data = text.encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        return await self._ask(head.encode() + data)

    async def get(self, path: str, extra: str = "") -> tuple[int, bytes]:
        """GET; the status and the answer's body.

        Args:
            path: with the query.
            extra: lines of the head, each with its end.
        """
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{extra}\r\n".encode())

    async def _ask(self, data: bytes) -> tuple[int, bytes]:
        connection = await self._idle.get()
        try:
            if connection is None:
                connection = await asyncio.open_connection(*self._address)
                self._opened.append(connection[1])
            answer = await asyncio.wait_for(self._exchange(connection, data), _ANSWER)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if connection is not None:
                connection[1].close()
            self._idle.put_nowait(None)
            return 0, b""
        self._idle.put_nowait(connection)
        return answer

    @staticmethod
    async def _exchange(
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes
    ) -> tuple[int, bytes]:
        reader, writer = connection
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 : head.index(b"\r\n", at + 17)]) if at >= 0 else 0
        return int(head[9:12]), await reader.readexactly(length)


async def open_loop(url: str, rate: float, seconds: float, reads: float = 1.0) -> dict[str, Any]:
    """Submit at a rate, however slowly the answers come.

    Args:
        url: of the gateway.
        rate: tasks a second.
        seconds: how long.
        reads: share of the tasks whose status is read once, a second later.

    Returns:
        The rate that was reached, percentiles in ms from the time at which a POST was due, how many answers had each status, and of the
        tasks that were read the share that had succeeded by then.
    """
    took: list[float] = []
    read: list[bool] = []
    statuses: collections.Counter[str] = collections.Counter()

    async def one(pool: HttpPool, number: int, due: float) -> None:
        status, answer = await pool.post("/v1/tasks", text)
        took.append((time.perf_counter() - due) * 1_000)
        statuses[f"POST {status}"] += 1
        if status == 202 and number * reads % 1 < reads:
            await asyncio.sleep(_READ_AFTER)
            status, answer = await pool.get(json.loads(answer)["statusUrl"])
            statuses[f"GET {status}"] += 1
            read.append(status == 200 and json.loads(answer)["status"] == "SUCCESS")

    text = body()
    async with HttpPool(url, _CONNECTIONS) as opened:
        began = time.perf_counter()
        await _at_rate(rate, round(rate * seconds), functools.partial(one, opened))
    elapsed = time.perf_counter() - began - (_READ_AFTER if reads else 0)
    cuts = {f"p{round(share * 100)} ms": percentile(took, share) for share in (0.5, 0.95, 0.99, 1)}
    succeeded = sum(read) / len(read) if read else 1.0
    return {"rate": len(took) / elapsed, **cuts, "statuses": dict(statuses), "succeeded": succeeded}


async def fill(url: str, count: int, connections: int, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Submit tasks as fast as they are accepted.

    Args:
        url: of the gateway.
        count: how many.
        connections: submissions under way at a time.
        payload: fields of an `echo` besides its message.

    Raises:
        BenchmarkFailed: one was not accepted.
    """
    text, ids, numbers = body(payload), [], iter(range(count))

    async def one(pool: HttpPool) -> None:
        for _ in numbers:
            status, answer = await pool.post("/v1/tasks", text)
            if status != 202:
                raise BenchmarkFailed(f"a submission was answered {status}: {answer[:300]!r}")
            ids.append(json.loads(answer)["taskId"])

    async with HttpPool(url, connections) as opened:
        await asyncio.gather(*(one(opened) for _ in range(connections)))
    return {"ids": ids}


async def follow(url: str, rate: float, count: int) -> dict[str, Any]:
    """Submit tasks at a rate and follow each to its end by long polls.

    Args:
        url: of the gateway.
        rate: tasks a second.
        count: how many.

    Returns:
        Lists of ms from the POST: of its answer, of the start of the run, of the moment when the client has seen SUCCESS.
    """
    text = body()
    answered: list[float] = []
    started: list[float] = []
    succeeded: list[float] = []

    async def one(pool: HttpPool, _: int, __: float) -> None:
        began = time.time()
        status, answer = await pool.post("/v1/tasks", text)
        answered.append((time.time() - began) * 1_000)
        task = json.loads(answer) if status == 202 else {"status": "refused"}
        while task["status"] in {"PENDING", "RUNNING"}:
            _, answer = await pool.get(task["statusUrl"], f"Prefer: wait={_WAIT}\r\n")
            task = json.loads(answer or b'{"status": "lost"}')
        if task["status"] != "SUCCESS":
            raise BenchmarkFailed(f"a task ended as {task}")
        succeeded.append((time.time() - began) * 1_000)
        at = dt.datetime.fromisoformat(task["startedAt"]).timestamp()
        started.append((at - began) * 1_000)

    async with HttpPool(url, _CONNECTIONS) as opened:
        await _at_rate(rate, count, functools.partial(one, opened))
    return {"answered": answered, "started": started, "succeeded": succeeded}


async def _at_rate(rate: float, count: int, one: Callable[[int, float], Coroutine[Any, Any, None]]) -> None:
    """Begin each at its time, without waiting for those before."""
    began = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due = began + number / rate
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            group.create_task(one(number, due))


def in_process(verb: str, *words: object, within: float) -> tuple[dict[str, Any], float]:
    """Run this module as a process of its own.

    Args:
        verb: ``open``, ``fill`` or ``follow``.
        words: its arguments.
        within: seconds it may take.

    Returns:
        Its outcome, and the CPU seconds that it used.

    Raises:
        BenchmarkFailed: it failed.
    """
    command = [sys.executable, "-m", "bench.harness.load", verb, *map(str, words)]
    before = os.times()
    output = programs.completed(command, os.environ, Path(__file__).parents[2], within)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    outcome: dict[str, Any] = json.loads(output)
    return outcome, cpu


def main() -> None:
    """Carry out the command line."""
    verb, url, *words = sys.argv[1:]
    if verb == "open":
        outcome = asyncio.run(open_loop(url, *map(float, words)))
    elif verb == "fill":
        outcome = asyncio.run(fill(url, int(words[0]), int(words[1]), json.loads(words[2])))
    else:
        outcome = asyncio.run(follow(url, float(words[0]), int(words[1])))
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    main()
