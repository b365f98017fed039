"""The broker map and the records of tasks: waits, times to live, limits."""

from __future__ import annotations

from typing import Any, Self

import pydantic
from pydantic import Field

from dispatch.config.groups.base import Group
from dispatch.protocol.delays import MAX_LEVELS
from dispatch.protocol.lanes import DEFAULT, NO_LANES, NO_LIMITS, LaneLimits, Lanes, parse_lanes, parse_limits
from dispatch.protocol.names import shard_queue
from dispatch.protocol.retry import Ladder, parse_ladder
from dispatch.protocol.shards import MAX_SHARDS


class QueueSettings(Group):
    """The broker map: the ladder, times to live and limits."""

    ladder: pydantic.InstanceOf[Ladder] = Field(
        parse_ladder("1m=60,5m=300,30m=1800"),
        description="Rungs as `name=seconds`, rising. A rung's wait is frozen when its queue is declared: another wait is another name.",
    )
    lanes: pydantic.InstanceOf[Lanes] = Field(
        NO_LANES,
        description="Work queues of their own for some task types, as `bulk=echo,http.request;robots=robot.*`: a flood of one kind refuses and delays no other. All other types share `robot.task.q`. The same for every process.",
    )
    shards: int = Field(
        1,
        ge=1,
        le=MAX_SHARDS,
        description="Queues that the default lane's tasks are spread over, by their concurrency key or their id: `robot.task.q`, `robot.task.q.shard.1`, …, where one queue is not enough. The same for every process.",
    )
    lease_park: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Seconds a copy waits in `robot.retry.q.lease` while its first copy still runs. Frozen at declaration.",
    )
    hold_ttl: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="Seconds after which a copy leaves `robot.hold.q` by itself, where it waits for the end of a pause or for its concurrency key: it runs, or is held again. Frozen at declaration.",
    )
    delay_levels: int = Field(
        MAX_LEVELS,
        ge=0,
        le=MAX_LEVELS,
        description="Delay levels, a queue each: a task can be submitted for up to 2^levels - 1 seconds later (22: 48 days; 0: not at all). More can be added to a broker at any time.",
    )
    delay_limit: int = Field(
        1_000_000,
        ge=1,
        description="Messages that a delay level holds; the gateway answers 429 to a delayed task beyond them. A policy.",
    )
    queue_ttl: float = Field(
        3_600.0,
        gt=0,
        description="Seconds a task may wait in the work queue before it ends in the DLQ as `expired`. A policy.",
    )
    queue_depth_limit: int = Field(
        10_000,
        ge=1,
        description="Ready messages in the work queue above which the gateway answers 429. The broker's own limit is 20 % higher.",
    )
    lane_depth_limits: pydantic.InstanceOf[LaneLimits] = Field(
        NO_LIMITS,
        description="Limits of lanes that have their own, as `bulk=50000;robots=500`, in place of `queue_depth_limit`.",
    )
    delivery_limit: int = Field(
        200, ge=20, description="Deliveries of one message before the broker dead-letters it: a backstop. A policy."
    )
    apply_topology: bool = Field(
        True,
        description="Whether gateway and worker create what is missing in the broker at start. Set `false` where their users may not configure.",
    )

    @pydantic.field_validator("ladder", mode="before")
    @classmethod
    def _ladder(cls, value: Any) -> Any:
        return parse_ladder(value) if isinstance(value, str) else value

    @pydantic.field_validator("lanes", mode="before")
    @classmethod
    def _lanes(cls, value: Any) -> Any:
        return parse_lanes(value) if isinstance(value, str) else value

    @pydantic.field_validator("lane_depth_limits", mode="before")
    @classmethod
    def _lane_limits(cls, value: Any) -> Any:
        return parse_limits(value) if isinstance(value, str) else value

    @pydantic.model_validator(mode="after")
    def _limited(self) -> Self:
        lanes = [lane.name for lane in self.lanes]
        if unknown := sorted(name for name, _ in self.lane_depth_limits.limits if name not in lanes):
            raise ValueError(f"lane_depth_limits: there is no lane {', '.join(unknown)}")
        return self

    def depth_limit_of(self, queue: str) -> int:
        """Ready messages in a work queue above which gateways refuse the tasks of its lane."""
        return self.lane_depth_limits.of(self.lanes.lane_with(queue)) or self.queue_depth_limit

    @property
    def depth_limits(self) -> dict[str, int]:
        """The same for every work queue."""
        return {queue: self.depth_limit_of(queue) for queue in self.work_queues}

    @property
    def lane_queues(self) -> dict[str, tuple[str, ...]]:
        """The work queues by lane, the default one first: a queue each; of the default lane, one for each shard."""
        queues = {lane: (queue,) for lane, queue in self.lanes.queues.items()}
        return queues | {DEFAULT: tuple(map(shard_queue, range(self.shards)))}

    @property
    def work_queues(self) -> tuple[str, ...]:
        """All work queues."""
        return tuple(queue for queues in self.lane_queues.values() for queue in queues)

    @property
    def queue_hard_limit(self) -> int:
        """Ready messages at which the broker itself refuses, in the default lane: 20 % above the gateway's threshold."""
        return hard_limit(self.queue_depth_limit)


def hard_limit(depth_limit: int) -> int:
    """Ready messages at which the broker itself refuses: 20 % above a gateway's threshold."""
    return -(-depth_limit * 12 // 10)


class RecordSettings(QueueSettings):
    """The record of a task: leases, deadlines and times to live."""

    result_ttl: float = Field(
        86_400.0,
        gt=0,
        description="Seconds a record stays after SUCCESS or a final FAIL. Dead letters stay until redriven or discarded.",
    )
    deadline: float = Field(
        86_400.0,
        gt=0,
        description="Seconds after acceptance during which a throttled task may wait without using up attempts.",
    )
    lease: float = Field(
        30.0, ge=0.5, le=3_600, description="Seconds a worker's claim lives without renewal; renewed at a third of it."
    )
    lost_runs: int = Field(
        3, ge=1, description="Lapsed leases of one attempt before it counts as failed (`worker-lost`)."
    )
    unpublished_grace: float = Field(
        30.0, gt=0, description="Seconds before the sweeper rejects a record whose publish was never confirmed."
    )
    idempotency_retry: float = Field(
        5.0, gt=0, description="Seconds after which a repeated Idempotency-Key adopts a submission that was cut off."
    )

    @property
    def idempotency_ttl(self) -> float:
        """Seconds an Idempotency-Key lives: as long as its record can, dead letters apart."""
        waits = sum(rung.seconds + self.queue_ttl for rung in self.ladder.rungs)
        return self.result_ttl + self.deadline + self.queue_ttl + waits
