"""The Celery worker, and what handlers of task types may read."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field, SecretStr

from dispatch.config import allowed_hosts, urls
from dispatch.config.groups.base import Group, Names, OptionalSecret, PortNumber, names
from dispatch.protocol import webhooks


class WorkerSettings(Group):
    """The Celery worker, and the threads that run beside it."""

    concurrency_min: int = Field(2, ge=1, description="Worker processes that are always there.")
    concurrency_max: int = Field(8, ge=1, description="Worker processes at most.")
    worker_threads: int = Field(
        40, ge=1, description="Threads of a worker with `--pool=threads`, unless it has `--concurrency`."
    )
    prefetch_multiplier: int = Field(5, ge=1, description="In-flight messages are `concurrency_max` times this: 40.")
    publish_timeout: float = Field(
        5.0, gt=0, description="Seconds the worker waits for the confirm of a hand-over before it tries again."
    )
    soft_shutdown: float = Field(10.0, ge=0, description="Seconds running tasks get to finish after SIGTERM.")
    consumer_timeout: float = Field(
        21_600.0,
        gt=0,
        description="RabbitMQ's `consumer_timeout`, seconds; task types that could outlast it refuse to start.",
    )
    worker_metrics_host: str = Field("127.0.0.1", description="Address on which a worker serves its metrics.")
    worker_metrics_port: PortNumber = Field(
        0, description="Port on which a worker serves its metrics; 0 is off, but `make up` chooses one."
    )
    control_commands: Names = Field(
        (),
        description="Remote-control commands that workers carry out beside those that only read, comma-separated (`shutdown,autoscale`).",
    )
    cancel_grace: float = Field(
        30.0,
        ge=0,
        description="Seconds that a running handler has to end after its task was cancelled; then it is ended.",
    )
    sweep_interval: float = Field(5.0, gt=0, description="Seconds between two sweeps.")
    sweep_margin: float = Field(
        600.0, ge=0, description="Seconds beyond lease, rung and queue TTL before a silent task is sent again."
    )

    resume_rate: float = Field(
        200.0,
        ge=1,
        le=10_000,
        description="Held tasks that the workers send a second, all together, after the end of a pause.",
    )

    @pydantic.field_validator("control_commands", mode="before")
    @classmethod
    def _control_commands(cls, value: Any) -> Any:
        return names(value)

    @property
    def prefetch(self) -> int:
        """Messages a worker holds unacked at most."""
        return self.concurrency_max * self.prefetch_multiplier


class HandlerSettings(Group):
    """What handlers of task types may read, as ``ctx.settings``: nothing of the system's own."""

    robot_api_url: str = Field("http://127.0.0.1:8090", description="Base URL of the robot vendor's API.")
    robot_client_id: str = Field("demo", description="Client id for the robot vendor's token.")
    robot_client_secret: SecretStr = Field(SecretStr("demo"), description="Client secret for the robot vendor's token.")
    robot_poll: float = Field(
        2.0, gt=0, description="Seconds before the first poll of a robot's order without an estimate; rising to 15."
    )
    http_allowed_hosts: Names = Field(
        (),
        description="What `http.request` and webhooks may call, comma-separated: `host:port`, or `host` for the default port of the URL's "
        "scheme (80, 443); an IPv6 address in brackets, `[::1]:80`. A name that resolves to an address which is not public "
        "(loopback, private, link-local, …) is refused, unless the address is an entry, too. `make up` adds the robot "
        "simulator where this is not set.",
    )

    webhook_secrets: OptionalSecret = Field(
        None,
        description="Secret that completion webhooks are signed with (Standard Webhooks): `whsec_` and the base64 of 24 to 64 "
        "random bytes; two while receivers change over, comma-separated. Empty: no webhooks. Gateways and workers need it.",
    )

    @pydantic.field_validator("webhook_secrets")
    @classmethod
    def _webhooks(cls, value: SecretStr | None) -> SecretStr | None:
        webhooks.secrets(value.get_secret_value() if value else "")
        return value

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        """What webhooks are signed with; empty without."""
        return webhooks.secrets(self.webhook_secrets.get_secret_value() if self.webhook_secrets else "")

    @pydantic.field_validator("robot_api_url")
    @classmethod
    def _robot_api(cls, value: str) -> str:
        urls.check_each(value, {"http", "https"})
        return value

    @pydantic.field_validator("http_allowed_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: Any) -> Any:
        entries = names(value)
        return allowed_hosts.canonical(entries) if isinstance(entries, tuple) else entries

    def allows_http(self, host: str, port: int, default: int) -> bool:
        """Whether `http_allowed_hosts` has a host at a port.

        Args:
            host: a name, or an address without brackets.
            port: where the request goes.
            default: the port of the URL's scheme.
        """
        return allowed_hosts.contain(self.http_allowed_hosts, host, port, default)
