"""What is left in the end: waits until the system is quiet, then looks at everything, past the proxies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import amqp
import httpx
import redis

from support.chaos.facts import DeadLetter, Left, Task
from support.chaos.orders import LATEST
from support.chaos.system import LADDER, LANE, VHOST, Machine, drain_limit
from support.waiting import PATIENCE, eventually

WORK, TAP, DLQ, HOLD = "robot.task.q", "robot.task.dead.q", "robot.task.dlq", "robot.hold.q"
RUNGS = tuple(f"robot.retry.q.{name}" for name, _ in LADDER)

#: Delay levels that a run uses: those of delays up to `orders.LATEST`, with one above.
LEVELS = LATEST.bit_length() + 1

#: Queues that must be empty in the end.
LINES = (WORK, f"{WORK}.{LANE}")
TRANSIT = (*LINES, *RUNGS, "robot.retry.q.lease", HOLD, TAP, *(f"robot.delay.q.{level}" for level in range(LEVELS)))

#: Fields of a record that matter once it is terminal, beside what the API shows.
INNER = ("decision", "decidedSeq", "fence", "owner", "before", "published", "discarded", "deadReason")

_TERMINAL = frozenset({"SUCCEEDED", "DEAD_LETTERED", "EXPIRED", "CANCELLED", "REJECTED"})

#: Seconds beyond the limit for which a system that does not drain is watched, to separate slow from stuck.
_OVERTIME = 60.0

#: Seconds after which the management API has counted again what is unacked: it does so each second.
_SAMPLED = 2.0


def settle(machine: Machine) -> Left:
    """Wait until nothing moves any more.

    Args:
        machine: unbroken since a moment ago.

    Returns:
        What is left, whether it drained, and how long that took.
    """
    began = time.monotonic()
    backlog = len(eventually(lambda: [_unfinished(machine)], _OVERTIME)[0])
    limit = drain_limit(backlog)
    drained = False
    while not drained and (seconds := time.monotonic() - began) < limit + _OVERTIME:
        with contextlib.suppress(AssertionError):
            eventually(_stays_quiet(machine), (limit + _OVERTIME - seconds) / PATIENCE, interval=0.25)
        seconds = time.monotonic() - began
        left = eventually(lambda: _look(machine), _OVERTIME)
        # A queue that takes 250 ms to answer is reported as empty: an extra copy may have waited on a rung all the time.
        drained = not (any(left.queues.values()) or left.claims or left.jobs or _unfinished(machine))
    listed = [dead_letter["taskId"] for dead_letter in _listed(machine.http_url, "/v1/dead-letters")]
    return dataclasses.replace(left, drained=drained, seconds=round(seconds, 1), limit=round(limit, 1), listed=listed)


def _stays_quiet(machine: Machine) -> Callable[[], bool]:
    """Whether nothing moves, and nothing has for as long as a message may be in neither of the two counts."""
    quiet_since: list[float] = []

    def look() -> bool:
        if not _quiet(machine):
            quiet_since.clear()
            return False
        quiet_since.append(time.monotonic())
        return quiet_since[-1] - quiet_since[0] > _SAMPLED

    return look


def _quiet(machine: Machine) -> bool:
    left = _look(machine)
    return not (
        any(left.queues.values()) or left.claims or left.stale or left.keys or left.jobs or _unfinished(machine)
    )


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """A server that was killed a moment ago does not answer yet."""
    try:
        yield
    except (OSError, amqp.AMQPError, httpx.HTTPError, redis.RedisError) as exc:
        raise AssertionError(repr(exc)) from exc


@_reached()
def _look(machine: Machine) -> Left:
    with contextlib.closing(machine.redis()) as store:
        claims = [_id(key) for key in store.scan_iter("robot:claim:*", count=1_000)]
        due = store.zrange("robot:due", 0, -1)
        stale = store.zrange("robot:dead:stale", 0, -1)
        indexed = store.zcard("robot:index")
        held = [key for key in store.scan_iter("robot:held:*", count=1_000) if store.zcard(key)]
    with httpx.Client(base_url=machine.http_url, timeout=20, trust_env=False) as http:
        keys, pauses, jobs = (
            http.get(path).raise_for_status().json()["items"] for path in ("/v1/keys", "/v1/pauses", "/v1/jobs")
        )
    return Left(
        _depths(machine), claims, due, stale, indexed, False, 0.0, 0.0, machine.restarts(),
        held=held, keys=[key["key"] for key in keys if key["perSeconds"] is None or key["waiting"]],
        pauses=[pause["what"] for pause in pauses],
        jobs=[job["jobId"] for job in jobs if job["state"] == "running"],
    )  # fmt: skip


def _depths(machine: Machine) -> dict[str, int]:
    """Ready messages exactly, and unacked ones as the management API saw them a second ago."""
    with machine.management() as api:
        listed = api.get(f"/api/queues/{VHOST}").raise_for_status().json()
    unacked = {queue["name"]: queue.get("messages_unacknowledged", 0) for queue in listed}
    with machine.channel() as channel:
        ready = {name: channel.queue_declare(name, passive=True).message_count for name in TRANSIT}
    return {name: ready[name] + unacked.get(name, 0) for name in TRANSIT}


@_reached()
def _unfinished(machine: Machine) -> list[str]:
    """Tasks that have not ended. An entry without a record is none: a refusal that Redis's death cut off leaves one, and who reads the list drops it."""
    with contextlib.closing(machine.redis()) as store:
        ids = store.zrange("robot:index", 0, -1)
        pipe = store.pipeline(transaction=False)
        for task_id in ids:
            pipe.hget(f"robot:task:{{{task_id}}}", "state")
        states = zip(ids, pipe.execute(), strict=True)
        return [task_id for task_id, state in states if state is not None and state not in _TERMINAL]


def _id(key: str) -> str:
    return key.partition("{")[2].rstrip("}")


def tasks(machine: Machine) -> list[Task]:
    """Every task that the API lists, with its hops and the inside of its record."""
    views = list(_listed(machine.http_url, "/v1/tasks"))
    with contextlib.closing(machine.redis()) as store:
        pipe = store.pipeline(transaction=False)
        for view in views:
            pipe.hmget(f"robot:task:{{{view['taskId']}}}", INNER)
            pipe.lrange(f"robot:hops:{{{view['taskId']}}}", 0, -1)
        found = pipe.execute()
    result = []
    for number, view in enumerate(views):
        inner = {name: value for name, value in zip(INNER, found[2 * number], strict=True) if value is not None}
        hops = [json.loads(line) for line in found[2 * number + 1]]
        result.append(Task(view["taskId"], {**view, "result": None}, hops, inner))
    return result


def _listed(url: str, path: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
        while True:
            page = http.get(path, params={"limit": 200, **({"cursor": cursor} if cursor else {})})
            body = page.raise_for_status().json()
            yield from body["items"]
            cursor = body["next"]
            if not cursor:
                return


@dataclasses.dataclass(frozen=True)
class History:
    """What the system has noted about what operators did."""

    jobs: list[dict[str, Any]]
    audit: list[dict[str, str]]
    audit_lines: list[str]  #: request ids of the audit lines in the gateway's log


def history(machine: Machine) -> History:
    """Jobs, and the audit log with its lines."""
    with httpx.Client(base_url=machine.http_url, timeout=20, trust_env=False) as http:
        jobs = http.get("/v1/jobs").raise_for_status().json()["items"]
    entries = [
        {"verb": each["verb"], "requestId": each["requestId"] or "", "result": each["result"]}
        for each in _listed(machine.http_url, "/v1/audit")
    ]
    lines = re.findall(r'"request_id": ?"(act-[0-9]+)"', "\n".join(_audit_lines(machine)))
    return History(jobs, entries, lines)


def _audit_lines(machine: Machine) -> Iterator[str]:
    for file in (machine.gateway.run_dir / "log").glob("gateway*"):
        yield from (line for line in file.read_text(errors="replace").splitlines() if '"audit"' in line)


def dead_letters(machine: Machine) -> list[DeadLetter]:
    """Every message in the DLQ; they go back when the channel closes."""
    found = []
    with machine.channel() as channel:
        while (message := channel.basic_get(DLQ)) is not None:
            headers = message.headers or {}
            deaths = headers.get("x-death") or [{}]
            reason = str(headers.get("x-dead-reason") or deaths[0].get("reason") or "")
            own = headers.get("id")
            task_id = own if isinstance(own, str) else str(headers.get("x-dead-id", ""))
            numbers = (headers.get("x-cycle", 0), headers.get("x-seq", 0))
            found.append(DeadLetter(task_id, *numbers, reason, headers.get("x-mark", "")))
    return found
