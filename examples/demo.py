"""``make demo``: four tasks pass the gateway, RabbitMQ, the workers, the ladder and the DLQ.

It starts the system through the launcher and then uses the Python client, as any program would.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dispatch.cli import pipes
from dispatch.config import stack_env
from launcher import layout
from robot_dispatch_client import Client, DispatchError, Queue, Task

ROOT = Path(__file__).parents[1]

#: The topology of production, with seconds instead of minutes.
LADDER = "1m=2,5m=4,30m=6"

#: Seconds until all tasks must have ended.
DEADLINE = 120.0

#: Title, type and payload of each task.
TASKS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("echo: succeeds at once", "echo", {"message": "hello, robots"}),
    ("robot.clean: the robot succeeds", "robot.clean", {"robot": "SN-1", "areas": ["lobby", "corridor"]}),
    ("robot.clean: the vendor fails twice", "robot.clean", {"robot": "SN-FLAKY-2", "areas": ["kitchen"]}),
    ("robot.clean: the vendor always fails", "robot.clean", {"robot": "SN-BROKEN", "areas": ["garage"]}),
)

_TOO_SLOW = (
    "\nThe stack that runs was started with this ladder, on which a task that fails waits {waits:g} s. "
    "The demo starts one with seconds: {down} && {demo}"
)

_WIDTH = max(len(title) for title, _, _ in TASKS)


def main() -> int:
    """Run the demo.

    Returns:
        0 when three tasks succeeded and one ended in the DLQ, as expected.
    """
    print(f"Demo on a compressed ladder: {LADDER} (name=seconds; in production 1m=60, 5m=300, 30m=1800).\n")
    started = subprocess.run([sys.executable, "-m", "launcher", "up"], cwd=ROOT, env=_environment(), check=False)
    if started.returncode:
        return started.returncode
    addresses = dict(line.split("=", 1) for line in (_run_dir() / "env").read_text().splitlines() if "=" in line)
    with Client(addresses["DISPATCH_HTTP_URL"], timeout=30, trust_env=False) as client:
        if (waits := _show_ladder(client)) > DEADLINE / 2:
            print(
                _TOO_SLOW.format(waits=waits, down=layout.command("down"), demo=layout.command("demo")), file=sys.stderr
            )
            return 1
        ended = _watch(client, _submit(client))
        _show_queues(client)
    _show_addresses(addresses)
    return 0 if sorted(task.status for task in ended) == ["FAIL", "SUCCESS", "SUCCESS", "SUCCESS"] else 1


def _environment() -> dict[str, str]:
    usual = {"DISPATCH_LADDER": LADDER, "DISPATCH_LEASE_PARK": "2", "DISPATCH_ROBOT_POLL": "0.5"}
    return {**usual, **os.environ, "DISPATCH_RUN_DIR": str(_run_dir())}


def _run_dir() -> Path:
    return stack_env.run_directory(os.environ, ROOT).absolute()


def _submit(client: Client) -> dict[str, str]:
    """Titles by task id."""
    print("\nSubmitting (POST /v1/tasks):")
    titles = {}
    for title, type_, payload in TASKS:
        began = time.monotonic()
        task = client.submit(type_, payload)
        titles[task.task_id] = title
        print(f"  202 in {(time.monotonic() - began) * 1_000:4.0f} ms  {task.task_id}  {title}")
    return titles


def _watch(client: Client, titles: Mapping[str, str]) -> list[Task]:
    """Print a line at each change until every task is terminal."""
    print("\nWatching (GET /v1/tasks/{taskId}):")
    head = f"{'TASK':<{_WIDTH}}  {'STATUS':<8} {'STATE':<13} ATTEMPT  RUNG, NEXT ATTEMPT, LAST ERROR"
    print(f"  {'':>6}  {head}")
    started_at = time.monotonic()
    shown: dict[str, str] = {}
    ended: dict[str, Task] = {}
    while len(ended) < len(titles) and time.monotonic() - started_at < DEADLINE:
        for task in _changes(client, titles, ended):
            line = _line(titles[task.task_id], task)
            if shown.get(task.task_id) != line:
                shown[task.task_id] = line
                print(f"  {time.monotonic() - started_at:5.1f}s  {line}", flush=True)
        time.sleep(0.1)
    return list(ended.values())


def _changes(client: Client, titles: Mapping[str, str], ended: dict[str, Task]) -> Iterator[Task]:
    for task_id in titles.keys() - ended.keys():
        task = client.get(task_id)
        if task.done:
            ended[task_id] = task
        yield task


def _line(title: str, task: Task) -> str:
    wait = task.queue or ""
    if task.next_attempt_at:
        wait += f" until {task.next_attempt_at:%H:%M:%S}"
    if task.state == "RUNNING" and task.progress:
        wait = f"{task.progress.percent} % {task.progress.message}"
    if task.error and not task.succeeded:
        wait += f"  ({task.error.type})"
    attempt = f"{task.attempt}/{task.max_attempts}"
    return f"{title:<{_WIDTH}}  {task.status:<8} {task.state:<13} {attempt:<7}  {wait}".rstrip()


def _show_ladder(client: Client) -> float:
    """The seconds that a task waits on it in all."""
    ladder = client.task_type("robot.clean").ladder
    print("\nThe ladder of this system:", " → ".join(f"{rung.name} ({rung.seconds:g} s)" for rung in ladder), "→ DLQ")
    return sum(rung.seconds for rung in ladder)


def _show_queues(client: Client) -> None:
    print("\nQueues (GET /v1/queues):")
    print(f"  {'QUEUE':<22} {'READY':>6} {'UNACKED':>8} {'CONSUMERS':>10}")
    for queue in _settled_queues(client):
        cells = (queue.ready, queue.unacked, queue.consumers)
        ready, unacked, consumers = ("-" if cell is None else cell for cell in cells)
        print(f"  {queue.name:<22} {ready:>6} {unacked:>8} {consumers:>10}")


def _settled_queues(client: Client) -> list[Queue]:
    """The queues, once RabbitMQ's statistics, which lag by some seconds, include the dead letter."""
    until = time.monotonic() + 12
    while True:
        queues: list[Queue] = []
        with contextlib.suppress(DispatchError):
            queues = client.queues()
        in_transit = [queue for queue in queues if queue.role != "dead-letters" and queue.total]
        dead = [queue for queue in queues if queue.role == "dead-letters" and queue.ready]
        if (dead and not in_transit) or time.monotonic() > until:
            return queues
        time.sleep(0.3)


def _show_addresses(addresses: Mapping[str, str]) -> None:
    url, celery = addresses["DISPATCH_HTTP_URL"], ".venv/bin/celery" if layout.CHECKOUT else "celery"
    print(f"""
API         {url}/docs
Flower      {addresses["FLOWER_URL"]}
dead letter curl {url}/v1/dead-letters
redrive it  set -a; . {os.path.relpath(_run_dir() / "env")}; set +a; {celery} -A celery_app dlq redrive --all
status      {layout.command("status")}
stop        {layout.command("down")}""")


if __name__ == "__main__":
    with pipes.quiet():
        code = main()
    sys.exit(code)
