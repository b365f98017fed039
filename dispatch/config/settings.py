"""Every setting of every process: one frozen object, read once from ``DISPATCH_*``.

All problems are reported at once; an unknown or misspelt ``DISPATCH_*`` is refused with the nearest
name; secrets are never printed. ``docs/reference/settings.md`` is generated from this module.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

import pydantic
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from dispatch.config import redis_url as redisurl
from dispatch.errors import ConfigurationError
from dispatch.protocol.retry import Rung, parse_ladder

PREFIX = "DISPATCH_"

#: Written into ``.run/env`` for clients; not a setting, and no misspelling when somebody sources that file.
_FOR_CLIENTS = frozenset({"http_url"})

#: Seconds: within this a request is answered, whatever RabbitMQ and Redis do (P7).
ANSWER_WITHIN = 5.0

Ladder = Annotated[tuple[Rung, ...], NoDecode]
Names = Annotated[tuple[str, ...], NoDecode]
OptionalSecret = Annotated[SecretStr | None, Field(repr=False)]
PortNumber = Annotated[int, Field(ge=0, le=65_535)]


class Settings(BaseSettings):
    """The settings; each is given in the environment as ``DISPATCH_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` passes: it has seen the whole environment, and says which names it does not know."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    # --- servers ---------------------------------------------------------------------------------
    broker_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/robot"),
        description="RabbitMQ; several URLs separated by `;` are tried in turn.",
    )
    gateway_broker_url: OptionalSecret = Field(
        None, description="The gateway's own user (write to the task exchange only). Default: `broker_url`."
    )
    worker_broker_url: OptionalSecret = Field(None, description="The workers' own user. Default: `broker_url`.")
    monitor_broker_url: OptionalSecret = Field(
        None, description="Flower's and `celery inspect`'s own user. Default: `broker_url`."
    )
    replay_broker_url: OptionalSecret = Field(
        None, description="The user that reads the DLQ and sends letters again. Default: `broker_url`."
    )
    admin_broker_url: OptionalSecret = Field(
        None, description="The user that applies the topology. Default: `broker_url`."
    )
    management_url: SecretStr = Field(
        SecretStr("http://guest:guest@127.0.0.1:15672"),
        description="RabbitMQ's management API; several URLs separated by `;` are tried in turn.",
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis; needs `maxmemory-policy noeviction`. `redis+sentinel://host:port,host:port/service` is the "
        "master that Sentinels look after, `redis+cluster://host:port,host:port` a Redis Cluster; with `rediss`, over TLS.",
    )
    redis_prefix: str = Field("robot:", pattern=r"^[A-Za-z0-9:_.-]{1,64}$", description="Prefix of every Redis key.")

    # --- the ladder and the queues ---------------------------------------------------------------
    ladder: Ladder = Field(
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

    # --- the record ------------------------------------------------------------------------------
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

    # --- gateway ---------------------------------------------------------------------------------
    http_host: str = Field("127.0.0.1", description="Address the gateway binds. A non-loopback one needs `api_keys`.")
    http_port: PortNumber = Field(8_080, description="PortNumber of the gateway; 0 lets `make up` choose a free one.")
    http_workers: int = Field(2, ge=1, le=64, description="Gateway processes.")
    http_threads: int = Field(16, ge=2, le=256, description="Threads of each gateway process.")
    max_body: int = Field(
        262_144, ge=1_024, le=1_048_576, description="Bytes a request body may have (413 above); 1 MiB at most."
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
    api_key_pepper: OptionalSecret = Field(
        None, description="OptionalSecret of the keys' HMAC; needed with `api_keys`."
    )
    confirm_timeout: float = Field(2.0, gt=0, le=2.5, description="Seconds the gateway waits for the broker's confirm.")
    store_timeout: float = Field(0.6, gt=0, le=0.75, description="Seconds the gateway waits for each Redis answer.")
    idempotency_retry: float = Field(
        5.0, gt=0, description="Seconds after which a repeated Idempotency-Key adopts a submission that was cut off."
    )
    trace_url: str = Field(
        "", description="Template of a link to a trace, with `{traceId}`; shown in the API when set."
    )

    # --- worker ----------------------------------------------------------------------------------
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
        0, description="PortNumber on which a worker serves its metrics; 0 is off, but `make up` chooses one."
    )
    sweep_interval: float = Field(5.0, gt=0, description="Seconds between two looks of the sweeper.")
    sweep_margin: float = Field(
        600.0, ge=0, description="Seconds beyond lease, rung and queue TTL before a silent task is sent again."
    )
    unpublished_grace: float = Field(
        30.0, gt=0, description="Seconds before the sweeper rejects a record whose publish was never confirmed."
    )

    # --- task types ------------------------------------------------------------------------------
    robot_api_url: str = Field("http://127.0.0.1:8090", description="Base URL of the robot vendor's API.")
    robot_client_id: str = Field("demo", description="Client id for the robot vendor's token.")
    robot_client_secret: SecretStr = Field(SecretStr("demo"), description="Client secret for the robot vendor's token.")
    robot_poll: float = Field(2.0, gt=0, description="Seconds between two looks at a robot's order.")
    http_allowed_hosts: Names = Field(
        ("127.0.0.1", "localhost"),
        description="Hosts (`name` or `name:port`) that `http.request` may call, comma-separated.",
    )

    # --- the launcher (`make up`) ----------------------------------------------------------------
    run_dir: str = Field(".run", description="Directory of the launcher's data, logs and `env` file.")
    rabbitmq_port: PortNumber = Field(0, description="AMQP port of the private RabbitMQ; 0 chooses a free one.")
    rabbitmq_management_port: PortNumber = Field(
        0, description="Management port of the private RabbitMQ; 0 chooses a free one."
    )
    redis_port: PortNumber = Field(0, description="PortNumber of the private Redis; 0 chooses a free one.")
    flower_port: PortNumber = Field(0, description="PortNumber of Flower; 0 chooses a free one.")
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower binds. A non-loopback one needs `flower_basic_auth`."
    )
    flower_basic_auth: OptionalSecret = Field(None, description="`user:password` for Flower.")
    simulator_port: PortNumber = Field(0, description="PortNumber of the robot simulator; 0 chooses a free one.")

    @pydantic.field_validator("ladder", mode="before")
    @classmethod
    def _ladder(cls, value: Any) -> Any:
        return parse_ladder(value) if isinstance(value, str) else value

    @pydantic.field_validator("api_keys", "http_allowed_hosts", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

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
            for url in value.get_secret_value().split(";"):
                _check_url(url, {"amqp", "amqps"})
        return value

    @pydantic.field_validator("management_url")
    @classmethod
    def _http(cls, value: SecretStr) -> SecretStr:
        for url in value.get_secret_value().split(";"):
            _check_url(url, {"http", "https"})
        return value

    @pydantic.field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        redisurl.parse(value.get_secret_value())
        return value

    @pydantic.model_validator(mode="after")
    def _together(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def broker(self, role: str) -> str:
        """The broker URL of a role.

        Args:
            role: ``gateway``, ``worker``, ``monitor``, ``replay`` or ``admin``.

        Returns:
            The role's own URL, or `broker_url`.
        """
        own: SecretStr | None = getattr(self, f"{role}_broker_url")
        return (own or self.broker_url).get_secret_value()

    @property
    def prefetch(self) -> int:
        """Messages a worker holds unacked at most."""
        return self.concurrency_max * self.prefetch_multiplier

    @property
    def queue_hard_limit(self) -> int:
        """Ready messages at which the broker itself refuses: 20 % above the gateway's threshold."""
        return -(-self.queue_depth_limit * 12 // 10)

    @property
    def idempotency_ttl(self) -> float:
        """Seconds an Idempotency-Key lives: as long as its record can, dead letters apart."""
        return (
            self.result_ttl
            + self.deadline
            + self.queue_ttl
            + sum(rung.seconds + self.queue_ttl for rung in self.ladder)
        )


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        environ: variables to read; the process's own by default.
        overrides: values by field name that win over the environment.

    Returns:
        The frozen settings.

    Raises:
        ConfigurationError: every problem, one a line, without any secret.
    """
    environ = os.environ if environ is None else environ
    given = {name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)}
    problems = [_unknown(name) for name in sorted(set(given) - set(Settings.model_fields) - _FOR_CLIENTS)]
    values: dict[str, Any] = {name: value for name, value in given.items() if name in Settings.model_fields}
    try:
        settings = Settings.model_validate({**values, **overrides})
    except pydantic.ValidationError as exc:
        problems += [
            _problem(error) for error in exc.errors(include_url=False, include_context=False, include_input=False)
        ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {PREFIX}{nearest[0].upper()}?" if nearest else ""
    return f"{PREFIX}{name.upper()}: no such setting{hint}"


def _problem(error: Any) -> str:
    names = [f"{PREFIX}{part.upper()}" for part in error["loc"][:1] if isinstance(part, str)]
    return ": ".join([*names, error["msg"].removeprefix("Value error, ")])


def _check_url(url: str, schemes: set[str]) -> None:
    parts = urlsplit(url)
    place = parts.path if parts.scheme == "unix" else parts.hostname
    if parts.scheme not in schemes or not place:
        msg = f"must be a URL that starts with one of {', '.join(sorted(schemes))}"
        raise ValueError(msg)
    try:
        parts.port  # noqa: B018 - the property checks the number
    except ValueError as exc:
        msg = "the port must be a number up to 65535"
        raise ValueError(msg) from exc


def _contradictions(settings: Settings) -> list[str]:
    """Settings that are each right and wrong together."""
    checks = {
        f"{PREFIX}CONCURRENCY_MIN must not exceed {PREFIX}CONCURRENCY_MAX": settings.concurrency_min
        > settings.concurrency_max,
        f"{PREFIX}API_KEY_PEPPER is needed with {PREFIX}API_KEYS": bool(settings.api_keys)
        and settings.api_key_pepper is None,
        f"{PREFIX}HTTP_HOST {settings.http_host} is not loopback: set {PREFIX}API_KEYS (make one with `dispatch keys new`)": (
            not is_loopback(settings.http_host) and not settings.api_keys
        ),
        f"{PREFIX}FLOWER_HOST {settings.flower_host} is not loopback: set {PREFIX}FLOWER_BASIC_AUTH": (
            not is_loopback(settings.flower_host) and settings.flower_basic_auth is None
        ),
        # A record that goes before its last copy would let that copy run again.
        f"{PREFIX}RESULT_TTL must exceed the ladder's waits + {PREFIX}QUEUE_TTL + {PREFIX}LEASE": (
            settings.result_ttl <= sum(rung.seconds for rung in settings.ladder) + settings.queue_ttl + settings.lease
        ),
    }
    return [text for text, wrong in checks.items() if wrong]


def reference() -> str:
    """The text of ``docs/reference/settings.md``."""
    lines = ["# Settings", "", "Generated from `dispatch/config/settings.py`; a test compares the two.", ""]
    lines += ["Each is an environment variable. An unknown or misspelt `DISPATCH_*` is refused at start.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{PREFIX}{name.upper()}` | {_shown(field.default)} | {field.description} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, tuple):
        default = ",".join(f"{each.name}={each.seconds:g}" if isinstance(each, Rung) else str(each) for each in default)
    return f"`{default}`" if default not in (None, "") else "-"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
