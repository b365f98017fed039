"""A long queue in little time: copies of one accepted task, with ids of their own, in RabbitMQ and in Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import amqp

from bench.harness.ours import WORK_QUEUE, Checkout
from dispatch.protocol.ids import new_task_id

#: Messages between two waits for confirms, and records of one pipeline.
_CHUNK = 500

#: Seconds for the confirms of a chunk.
_CONFIRM = 60.0


def copy_tasks(tree: Checkout, task_id: str, count: int) -> None:
    """Add tasks that wait, as one does that the gateway accepted.

    A copy's record names the first task inside of the message that it keeps for a later republish; sizes and numbers of keys and
    of index entries are those of as many accepted tasks.

    Args:
        tree: whose queue and records.
        task_id: of the task that is copied; it waits in the queue.
        count: how many.
    """
    ids = [new_task_id() for _ in range(count)]
    _copy_records(tree, task_id, ids)
    _copy_messages(tree, ids)


def _copy_records(tree: Checkout, task_id: str, ids: list[str]) -> None:
    with contextlib.closing(tree.servers.redis(tree.database)) as client:
        own = list(client.scan_iter(f"*{task_id}*", count=1_000))
        indexes = [(key, client.zscore(key, task_id)) for key in client.scan_iter(_type="zset", count=1_000)]
        entries = [(key, score) for key, score in indexes if score is not None]
        sums: list[tuple[bytes, Any]] = [
            (key, client.hget(key, task_id)) for key in client.scan_iter("robot:usage:*", count=1_000)
        ]
        for chunk in _chunks(ids):
            with client.pipeline(transaction=False) as pipeline:
                for new in chunk:
                    for key in own:
                        pipeline.copy(key, key.replace(task_id.encode(), new.encode()))
                for key, score in entries:
                    pipeline.zadd(key, dict.fromkeys(chunk, score))
                for key, held in sums:
                    pipeline.hset(key, items=[part for new in chunk for part in (new, held)])
                pipeline.execute()


def _copy_messages(tree: Checkout, ids: list[str]) -> None:
    with tree.servers.channel(tree.broker_url) as channel:
        taken = channel.basic_get(WORK_QUEUE)
        body, properties, key = taken.body, dict(taken.properties), taken.delivery_info["routing_key"]
        exchange = taken.delivery_info["exchange"]
        channel.basic_reject(taken.delivery_tag, requeue=True)
        headers = {**taken.headers}
        headers.pop("x-delivery-count", None)
        found = headers["id"]
        channel.confirm_select()
        confirmed = [0]
        channel.events["basic_ack"].add(lambda tag, _: confirmed.__setitem__(0, max(tag, confirmed[0])))
        sent = 0
        for chunk in _chunks(ids):
            for new in chunk:
                channel._basic_publish(_copied(body, properties, headers, found, new), exchange, key)  # noqa: SLF001 - the other one waits for each confirm
            sent += len(chunk)
            while confirmed[0] < sent:
                channel.connection.drain_events(timeout=_CONFIRM)


def _copied(body: Any, properties: dict[str, Any], headers: dict[str, Any], found: str, new: str) -> amqp.Message:
    own = {name: new if value == found else value for name, value in headers.items()}
    basic = {name: new if value == found else value for name, value in properties.items()}
    return amqp.Message(body, **(basic | {"application_headers": own, "delivery_mode": 2}))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
