"""What a type checker sees of the client's verbs; `make types` checks it, nothing runs it."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from robot_dispatch_client import (
    AsyncClient,
    Client,
    DeadLetterGroup,
    Job,
    JobCount,
    Key,
    Schedule,
    Submission,
    Task,
    Verdict,
)


def sync_verbs(client: Client, task: Task) -> None:
    """A verb blocks, and has its result."""
    assert_type(
        client.submit("echo", {"a": 1}, labels={"a": "b"}, delay=dt.timedelta(minutes=1), webhook="https://a"), Task
    )
    assert_type(client.submit_many([Submission(type="echo", payload={})]), list[Verdict])
    assert_type(client.wait(task, timeout=3), Task)
    assert_type(client.list(type="echo", since=dt.datetime.now(dt.UTC)), Iterator[Task])
    assert_type(client.start_job("redrive", canary=True, labels={"a": "b"}), Job)
    assert_type(client.count_job("cancel", type="echo"), JobCount)
    assert_type(client.keys(), list[Key])
    assert_type(client.dead_letter_groups(), list[DeadLetterGroup])
    assert_type(client.schedules.put("nightly", "echo", {}, "0 3 * * *", paused=True), Schedule)
    client.submit("echo", {}, colour="red")  # type: ignore[call-arg]
    client.get()  # type: ignore[call-arg]
    client.wait(7)  # type: ignore[arg-type]


async def async_verbs(client: AsyncClient, task: Task) -> None:
    """The same verb is awaited."""
    assert_type(await client.submit("echo", {"a": 1}, idempotency_key="a"), Task)
    assert_type(await client.submit_many([]), list[Verdict])
    assert_type(await client.wait(task), Task)
    assert_type(client.list(labels={"a": "b"}), AsyncIterator[Task])
    assert_type(await client.wait_for_job(await client.start_job("retry-now")), Job)
    assert_type(await client.schedules.all(), list[Schedule])
    await client.get(7)  # type: ignore[arg-type]
