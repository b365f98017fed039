"""The settings by owner: each group is what one part of the system needs, and may be handed to it alone.

Every field is an environment variable, ``DISPATCH_<NAME>``, whatever its group.
"""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
from pydantic import Field, SecretStr

from dispatch.config import allowed_hosts, redis_url, tls, urls
from dispatch.protocol.retry import Ladder, parse_ladder

Names = tuple[str, ...]
OptionalSecret = Annotated[SecretStr | None, Field(repr=False)]
PortNumber = Annotated[int, Field(ge=0, le=65_535)]


def _pair(info: pydantic.ValidationInfo, prefix: str, key: str) -> None:
    """Check a client's certificate, a field before, with its key; one that was refused by itself is not there."""
    if (cert := info.data.get(f"{prefix}_cert")) is not None:
        tls.check_pair(cert, key, f"DISPATCH_{prefix.upper()}_CERT")


class Group(pydantic.BaseModel):
    """Base of the groups: frozen, unknown fields refused, no value in an error."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, defer_build=True
    )


class BrokerSettings(Group):
    """RabbitMQ: a URL for each role, and the management API."""

    broker_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/robot"),
        description="RabbitMQ; several URLs separated by `;` are tried in turn.",
    )
    gateway_broker_url: OptionalSecret = Field(
        None, description="The gateway's own user (write to the task exchange only). Default: `broker_url`."
    )
    worker_broker_url: OptionalSecret = Field(None, description="The workers' own user. Default: `broker_url`.")
    monitor_broker_url: OptionalSecret = Field(
        None,
        description="The user of Flower, `celery inspect` and the other commands that only watch. Default: `broker_url`.",
    )
    replay_broker_url: OptionalSecret = Field(
        None, description="The user that reads the DLQ and redrives dead letters. Default: `broker_url`."
    )
    admin_broker_url: OptionalSecret = Field(
        None, description="The user that applies the topology. Default: `broker_url`."
    )
    management_url: SecretStr = Field(
        SecretStr("http://guest:guest@127.0.0.1:15672"),
        description="RabbitMQ's management API; several URLs separated by `;` are tried in turn.",
    )
    broker_tls_ca: str = Field(
        "",
        description="PEM file of the authorities that `amqps` URLs and an `https` management API are verified against. "
        "Default: the system's.",
    )
    broker_tls_cert: str = Field(
        "", description="PEM file of the client certificate for RabbitMQ, where it asks for one."
    )
    broker_tls_key: str = Field(
        "", description="PEM file of its key, not encrypted. Default: the key is in the file of the certificate."
    )
    broker_tls_server_name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:_-]{0,253}$",
        description="Name that RabbitMQ's certificate must have on its AMQP port. Default: the host of the URL, each host its own.",
    )

    @pydantic.field_validator(
        "broker_url",
        "gateway_broker_url",
        "worker_broker_url",
        "monitor_broker_url",
        "replay_broker_url",
        "admin_broker_url",
    )
    @classmethod
    def _amqp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.check(value.get_secret_value(), {"amqp", "amqps"})
        return value

    @pydantic.field_validator("management_url")
    @classmethod
    def _http(cls, value: SecretStr) -> SecretStr:
        urls.check(value.get_secret_value(), {"http", "https"})
        return value

    @pydantic.field_validator("broker_tls_ca")
    @classmethod
    def _broker_ca(cls, value: str) -> str:
        tls.check_authorities(value)
        return value

    @pydantic.field_validator("broker_tls_cert")
    @classmethod
    def _broker_cert(cls, value: str) -> str:
        tls.check_readable(value)
        return value

    @pydantic.field_validator("broker_tls_key")
    @classmethod
    def _broker_key(cls, value: str, info: pydantic.ValidationInfo) -> str:
        _pair(info, "broker_tls", value)
        return value

    @property
    def broker_tls(self) -> tls.Tls:
        """TLS of connections to RabbitMQ."""
        return tls.Tls(self.broker_tls_ca, self.broker_tls_cert, self.broker_tls_key, self.broker_tls_server_name)

    def address(self, role: str) -> tls.BrokerAddress:
        """What a role connects to; arguments as those of `broker`."""
        return tls.BrokerAddress(self.broker(role), self.broker_tls)

    def broker(self, role: str) -> str:
        """The broker URL of a role.

        Args:
            role: ``gateway``, ``worker``, ``monitor``, ``replay`` or ``admin``.

        Returns:
            The role's own URL, or `broker_url`.
        """
        own: SecretStr | None = getattr(self, f"{role}_broker_url")
        return (own or self.broker_url).get_secret_value()


class RedisSettings(Group):
    """Redis: where it is, and the prefix of every Redis key."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis; needs `maxmemory-policy noeviction`. `redis+sentinel://host:port,host:port/service` is the "
        "master that Sentinels look after, `redis+cluster://host:port,host:port` a Redis Cluster; with `rediss`, over TLS.",
    )
    redis_tls_ca: str = Field(
        "",
        description="PEM file of authorities that `rediss` URLs are verified against, beside the system's. "
        "Options of the URL take precedence over these settings.",
    )
    redis_tls_cert: str = Field("", description="PEM file of the client certificate for Redis, where it asks for one.")
    redis_tls_key: str = Field(
        "", description="PEM file of its key, not encrypted. Default: the key is in the file of the certificate."
    )
    redis_prefix: str = Field("robot:", pattern=r"^[A-Za-z0-9:_.-]{1,64}$", description="Prefix of every Redis key.")

    @pydantic.field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        redis_url.parse(value.get_secret_value())
        return value

    @pydantic.field_validator("redis_tls_ca")
    @classmethod
    def _redis_ca(cls, value: str) -> str:
        tls.check_authorities(value)
        return value

    @pydantic.field_validator("redis_tls_cert")
    @classmethod
    def _redis_cert(cls, value: str) -> str:
        tls.check_readable(value)
        return value

    @pydantic.field_validator("redis_tls_key")
    @classmethod
    def _redis_key(cls, value: str, info: pydantic.ValidationInfo) -> str:
        _pair(info, "redis_tls", value)
        return value

    @property
    def redis_tls(self) -> tls.Tls:
        """TLS of connections to Redis."""
        return tls.Tls(self.redis_tls_ca, self.redis_tls_cert, self.redis_tls_key)


class QueueSettings(Group):
    """The broker map: the ladder, times to live and limits."""

    ladder: pydantic.InstanceOf[Ladder] = Field(
        parse_ladder("1m=60,5m=300,30m=1800"),
        description="Rungs as `name=seconds`, rising. A rung's wait is frozen when its queue is declared: another wait is another name.",
    )
    lease_park: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Seconds a copy waits in `robot.retry.q.lease` while its first copy still runs. Frozen at declaration.",
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

    @property
    def queue_hard_limit(self) -> int:
        """Ready messages at which the broker itself refuses: 20 % above the gateway's threshold."""
        return -(-self.queue_depth_limit * 12 // 10)


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


class GatewaySettings(Group):
    """The HTTP gateway."""

    http_host: str = Field("127.0.0.1", description="Address the gateway binds. A non-loopback one needs `api_keys`.")
    http_port: PortNumber = Field(8_080, description="Port of the gateway; 0 lets `make up` choose a free one.")
    http_workers: int = Field(2, ge=1, le=64, description="Gateway processes.")
    http_threads: int = Field(16, ge=2, le=256, description="Threads of each gateway process.")
    max_body: int = Field(
        262_144,
        ge=1_024,
        le=1_048_576,
        description="Bytes a request body may have (413 above); 1 MiB at most. Workers take bodies with about as many values.",
    )
    http_head_timeout: float = Field(
        5.0,
        gt=0,
        le=60,
        description="Seconds a client has to send request line and headers, from their first byte (408 after).",
    )
    http_body_timeout: float = Field(
        10.0, gt=0, le=300, description="Seconds a client has to send a request body (408 after)."
    )
    http_drain_bytes: int = Field(
        8_388_608,
        ge=0,
        le=1_073_741_824,
        description="Bytes of a refused request's body that are read, so that its connection stays usable; beyond, it is closed.",
    )
    http_drain_timeout: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Seconds for which a refused request's body is read; after them its connection is closed.",
    )
    rate_limit: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Requests a principal may send within `rate_window`, to all gateway processes together (429 above); 0 is no limit.",
    )
    rate_window: float = Field(60.0, ge=1, le=86_400, description="Seconds that `rate_limit` counts for.")
    api_keys: Names = Field(
        (),
        description="`<id>:<hmac>:<scope>+<scope>`, comma-separated; made by `dispatch keys new`. Empty: open, on loopback only.",
        repr=False,
    )
    api_key_pepper: OptionalSecret = Field(None, description="Secret of the keys' HMAC; needed with `api_keys`.")
    confirm_timeout: float = Field(2.0, gt=0, le=2.5, description="Seconds the gateway waits for the broker's confirm.")
    store_timeout: float = Field(0.6, gt=0, le=0.75, description="Seconds the gateway waits for each Redis answer.")
    trace_url: str = Field(
        "", description="Template of a link to a trace, with `{traceId}`; shown in the API when set."
    )

    @pydantic.field_validator("api_keys", mode="before")
    @classmethod
    def _api_keys(cls, value: Any) -> Any:
        return names(value)


class WorkerSettings(Group):
    """The Celery worker, and the threads that run beside it."""

    concurrency_min: int = Field(2, ge=1, description="Worker processes that are always there.")
    concurrency_max: int = Field(8, ge=1, description="Worker processes at most.")
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
    sweep_interval: float = Field(5.0, gt=0, description="Seconds between two sweeps.")
    sweep_margin: float = Field(
        600.0, ge=0, description="Seconds beyond lease, rung and queue TTL before a silent task is sent again."
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
    robot_poll: float = Field(2.0, gt=0, description="Seconds between two polls of a robot's order.")
    http_allowed_hosts: Names = Field(
        (),
        description="What `http.request` may call, comma-separated: `host:port`, or `host` for the default port of the URL's "
        "scheme (80, 443); an IPv6 address in brackets, `[::1]:80`. A name that resolves to an address which is not public "
        "(loopback, private, link-local, …) is refused, unless the address is an entry, too. `make up` adds the robot "
        "simulator where this is not set.",
    )

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


class LauncherSettings(Group):
    """The launcher (``make up``) and what it starts beside gateway and worker."""

    run_dir: str = Field(".run", description="Directory of the launcher's data, logs and `env` file.")
    rabbitmq_port: PortNumber = Field(0, description="AMQP port of the private RabbitMQ; 0 chooses a free one.")
    rabbitmq_management_port: PortNumber = Field(
        0, description="Management port of the private RabbitMQ; 0 chooses a free one."
    )
    redis_port: PortNumber = Field(0, description="Port of the private Redis; 0 chooses a free one.")
    flower_port: PortNumber = Field(0, description="Port of Flower; 0 chooses a free one.")
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower binds. A non-loopback one needs `flower_basic_auth`."
    )
    flower_basic_auth: OptionalSecret = Field(None, description="`user:password` for Flower.")
    simulator_port: PortNumber = Field(0, description="Port of the robot simulator; 0 chooses a free one.")


def names(value: Any) -> Any:
    """A comma-separated text as a tuple; anything else as it is."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value
