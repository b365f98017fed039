"""Redis connections per process: ``python -m tools.redis_connections [--root PATH --python PATH]``.

Starts a private RabbitMQ and Redis, one gateway process and one worker, as users do, runs some echo tasks through them
and counts the connections that Redis then has, by the process that holds them; and again after a task that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from dispatch.cli import pipes
from tools import private_stack
from tools.private_stack import PrivateStack, eventually

#: Tasks that run before the count, so that what connects late has connected.
TASKS = 20

#: Seconds that acceptance, and the end, of all tasks may take on a busy machine.
_PATIENCE = 120.0

#: Seconds without a change after which a count stands: longer than the period of most background threads.
_CALM = 12.0

_GATEWAY, _WORKER = "GATEWAY_PID", "WORKER_PID"


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process and the connections that it holds."""

    role: str
    pid: int
    connections: int


def count(root: Path, python: Path | None) -> dict[str, list[Holder]]:
    """Start a stack, run tasks, count.

    Args:
        root: the checkout.
        python: its interpreter; its own ``.venv`` by default.

    Returns:
        By occasion, every process of gateway and worker, also those without a connection.
    """
    with private_stack.running(root, python, "up", "--only", "servers,worker,gateway", http_workers=1) as stack:
        _run(stack, TASKS, {"message": "x"}, "SUCCESS")
        succeeded = _settled(stack)
        _run(stack, 1, {"message": "x", "permanent": True}, "FAIL")
        return {f"after {TASKS} tasks": succeeded, "after a dead letter": _settled(stack)}


def _run(stack: PrivateStack, times: int, payload: dict[str, Any], end: str) -> None:
    with httpx.Client(base_url=stack.addresses["DISPATCH_HTTP_URL"], timeout=10, trust_env=False) as client:
        post = functools.partial(_posted, client, payload)
        for task in [eventually(post, _PATIENCE, "the gateway accepts a task") for _ in range(times)]:
            eventually(functools.partial(_ended, client, task, end), _PATIENCE, f"{task} has {end}")


def _posted(client: httpx.Client, payload: dict[str, Any]) -> str | None:
    answer = client.post("/v1/tasks", json={"type": "echo", "payload": payload})
    return answer.headers["Location"] if answer.status_code == 202 else None


def _ended(client: httpx.Client, task: str, status: str) -> bool:
    return bool(client.get(task).json().get("status") == status)


def _settled(stack: PrivateStack) -> list[Holder]:
    """The connections, once no process has opened or closed one for a while."""
    since, last = time.monotonic(), _holders(stack)
    deadline = since + _PATIENCE
    while time.monotonic() < min(since + _CALM, deadline):
        time.sleep(1)
        if (now := _holders(stack)) != last:
            since, last = time.monotonic(), now
    return last


def _holders(stack: PrivateStack) -> list[Holder]:
    ports = _client_ports(stack.addresses["DISPATCH_REDIS_URL"])
    found = []
    for role, process in _processes(stack):
        own = ports & _local_ports(process)
        ports -= own  # a forked child may have inherited descriptors of its parent, which comes first
        found.append(Holder(role, process.pid, len(own)))
    return [*found, Holder("others", 0, len(ports))] if ports else found


def _client_ports(url: str) -> set[int]:
    """The ports of Redis's clients, the one that asks apart."""
    with contextlib.closing(redis.Redis.from_url(url)) as client:
        own = str(client.client_id())
        clients = client.client_list()
    return {int(each["addr"].rpartition(":")[2]) for each in clients if each["id"] != own}


def _local_ports(process: psutil.Process) -> set[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {connection.laddr.port for connection in process.net_connections("tcp") if connection.raddr}
    return set()


def _processes(stack: PrivateStack) -> Iterator[tuple[str, psutil.Process]]:
    """Gateway and worker, parents before their children."""
    addresses = stack.addresses
    for name, main, child in (
        (_GATEWAY, "gateway, master", "gateway, process"),
        (_WORKER, "worker, main process", "worker, child"),
    ):
        process = psutil.Process(int(addresses[name]))
        yield main, process
        yield from ((child, each) for each in sorted(process.children(recursive=True), key=lambda each: each.pid))


def report(occasions: Mapping[str, Sequence[Holder]]) -> Iterator[str]:
    """The lines to print."""
    for occasion, holders in occasions.items():
        yield f"{occasion:<24}{'pid':>8}{'Redis connections':>20}"
        yield from (f"  {each.role:<22}{each.pid or '':>8}{each.connections:>20}" for each in holders)
        yield f"  {'together':<22}{'':>8}{sum(each.connections for each in holders):>20}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table.

    Args:
        argv: the command line without the program; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.redis_connections", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a checkout; the current directory by default")
    parser.add_argument("--python", type=Path, help="its interpreter; ROOT/.venv/bin/python by default")
    args = parser.parse_args(argv)
    print("\n".join(report(count(args.root, args.python))))


if __name__ == "__main__":
    with pipes.quiet():
        main()
