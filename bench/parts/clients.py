"""What many clients that wait cost, and what rude clients do to others; for several checkouts.

``waits``: memory and CPU of long polls, in one gateway process. ``attacks``: the longest time until ``/livez`` and a POST answered while
clients hold connections, with two processes, as deployed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from bench.harness import load, procfs, programs
from bench.harness.ours import RunningGateway
from bench.harness.results import ResultRow
from bench.harness.turns import progress
from bench.parts.base import Measured, checkouts, measuring

#: Long polls that are held.
WAITS = 2_000

#: Seconds of each attack.
ATTACK = 12.0

#: Settings that let one client hold as many.
_LIMITS = {"http_waits_per_principal": WAITS, "http_peer_connections": 0}


class _ManyClients:
    """What the two parts share."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""
        parser.add_argument(
            "--tree", action="append", default=[], metavar="NAME=PATH", help="another checkout, measured as well"
        )


class LongPolls(_ManyClients):
    """``python -m bench waits``."""

    NAME = "waits"
    HELP = "memory and CPU of 2,000 long polls in one gateway process"

    def measure(self, options: argparse.Namespace) -> Measured:
        """One checkout after the other."""
        with measuring() as (on, measured):
            rows = []
            for tree in checkouts(options, on):
                with tree.gateway(1, **_LIMITS) as gateway:
                    rows.append(ResultRow(f"{WAITS:,} long polls", tree.name, _columns(waits(gateway))))
            measured.rows = rows
        return measured


class RudeClients(_ManyClients):
    """``python -m bench attacks``."""

    NAME = "attacks"
    HELP = "the longest time until /livez and a POST answered while rude clients hold connections, two processes"

    def measure(self, options: argparse.Namespace) -> Measured:
        """One checkout after the other."""
        with measuring() as (on, measured):
            rows = []
            for tree in checkouts(options, on):
                with tree.gateway(2, **_LIMITS) as gateway:
                    for name, figures in attack(gateway).items():
                        rows.append(ResultRow(name, tree.name, _columns(figures)))
                        progress(
                            f"{tree.name}, {name}: "
                            + ", ".join(f"{what} {value:.2f}" for what, value in figures.items())
                        )
            measured.rows = rows
        return measured


def _columns(figures: Mapping[str, float]) -> dict[str, list[float]]:
    return {name: [value] for name, value in figures.items()}


def _connected(gateway: RunningGateway) -> http.client.HTTPConnection:
    """A connection that a client keeps open."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _post(connection: http.client.HTTPConnection) -> str:
    """Submit a task; its URL."""
    connection.request("POST", "/v1/tasks", body=load.body(), headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    task = json.loads(answer.read())
    if answer.status != 202:
        raise http.client.HTTPException(str(task))
    return str(task["statusUrl"])


def waits(gateway: RunningGateway) -> dict[str, float]:
    """What long polls cost: how many wait, the memory of each, the CPU of all."""
    with contextlib.ExitStack() as stack, contextlib.closing(_connected(gateway)) as one:
        before = procfs.pss(gateway.program.pid)
        opened = _long_polls(gateway, stack, _post(one))
        time.sleep(6)  # until the last one waits
        poll = select.poll()
        for connection in opened:
            poll.register(connection, select.POLLIN)
        waiting = len(opened) - len(poll.poll(0))
        grown = procfs.pss(gateway.program.pid) - before
        cpu = procfs.cpu(gateway.program.pid)
        time.sleep(4)
        share = (procfs.cpu(gateway.program.pid) - cpu) / 4 * 100
        return {"that wait": float(waiting), "KiB each": grown / max(1, waiting) / 1024, "CPU of all %": share}


# --- rude clients ----------------------------------------------------------------------------------
def _sent(gateway: RunningGateway, stack: contextlib.ExitStack, data: bytes, count: int) -> list[socket.socket]:
    """Connections on each of which the same bytes were sent."""
    opened = []
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.settimeout(5)
        with contextlib.suppress(OSError):  # refused, or no more of them are accepted
            connection.connect(("127.0.0.1", gateway.port))
            connection.sendall(data)
        opened.append(connection)
    return opened


def _long_polls(gateway: RunningGateway, stack: contextlib.ExitStack, url: str) -> list[socket.socket]:
    return _sent(gateway, stack, f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=20\r\n\r\n".encode(), WAITS)


def _attacks(url: str) -> Mapping[str, tuple[bytes, int]]:
    """What clients send, and on how many connections."""
    post = "POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    nested = b'{"type":"echo","payload":{"message":' + b"[" * 60 + b"[]," * 87_000 + b"[]" + b"]" * 60 + b"}}"
    return {
        "nothing": (b"", 0),
        "half heads x 300": (b"GET /livez HTTP/1.1\r\nHost: x\r\n", 300),
        "half bodies x 300": (f"{post}Content-Length: 100\r\n\r\n{{".encode(), 300),
        "idle x 300": (b"", 300),
        "streams of one client x 40": (f"GET {url}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode(), 40),
        "long polls x 2,000": (f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=20\r\n\r\n".encode(), WAITS),
        "2,000 that end together": (f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=6\r\n\r\n".encode(), WAITS),
        "reads nothing x 100": (b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 40, 100),
        "256 KiB of [] x 40": (f"{post}Content-Length: {len(nested)}\r\n\r\n".encode() + nested, 40),
    }  # fmt: skip


def attack(gateway: RunningGateway) -> dict[str, dict[str, float]]:
    """The longest times under each attack."""
    found = {}
    with contextlib.closing(_connected(gateway)) as one:
        url = _post(one)
    for name, (data, count) in _attacks(url).items():
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(2) as pool:
            over = time.monotonic() + ATTACK
            livez = pool.submit(_probe, gateway, _alive, over)
            post = pool.submit(_probe, gateway, _post, over)
            _sent(gateway, stack, data, count)
            found[name] = {"/livez s": livez.result(), "POST s": post.result()}
        gateway.program.require(lambda: programs.answers(gateway.port), "a gateway that is ready again")
    return found


def _alive(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/livez")
    connection.getresponse().read()


def _probe(gateway: RunningGateway, ask: Callable[[http.client.HTTPConnection], object], over: float) -> float:
    """The longest time that a request on a connection of its own took; 60 s for one without an answer."""
    longest = 0.0
    while time.monotonic() < over:
        began = time.monotonic()
        try:
            with contextlib.closing(_connected(gateway)) as connection:
                ask(connection)
        except (OSError, http.client.HTTPException, ValueError):
            return 60.0
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.05)
    return longest
