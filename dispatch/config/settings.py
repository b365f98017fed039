"""Every setting of every process: one frozen object, read once from ``DISPATCH_*``.

All problems are reported at once; an unknown or misspelt ``DISPATCH_*`` is refused with the nearest
name; secrets are never printed. ``docs/reference/settings.md`` is generated from `dispatch.config.groups`.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Self

import pydantic

from dispatch.config import foreign
from dispatch.config.groups import (
    AuditSettings,
    BrokerSettings,
    CallbackSettings,
    GatewaySettings,
    HandlerSettings,
    LauncherSettings,
    QueueSettings,
    RecordSettings,
    RedisSettings,
    SealingSettings,
    WorkerSettings,
)
from dispatch.config.tls import Tls
from dispatch.errors import ConfigurationError

PREFIX = "DISPATCH_"

#: Written into ``.run/env`` for clients; not a setting, and no misspelling when a shell sources that file.
_FOR_CLIENTS = frozenset({"http_url"})

#: Roles with a broker URL of their own.
_ROLES = ("gateway", "worker", "monitor", "control", "replay", "admin")

#: Seconds: within this a request is answered, whatever RabbitMQ and Redis do (P7).
ANSWER_WITHIN = 5.0

#: The groups in the order of the reference.
GROUPS = (
    BrokerSettings,
    SealingSettings,
    RedisSettings,
    QueueSettings,
    RecordSettings,
    GatewaySettings,
    AuditSettings,
    CallbackSettings,
    WorkerSettings,
    HandlerSettings,
    LauncherSettings,
)


class Settings(
    LauncherSettings,
    HandlerSettings,
    WorkerSettings,
    AuditSettings,
    GatewaySettings,
    CallbackSettings,
    RecordSettings,
    RedisSettings,
    BrokerSettings,
):
    """The settings; each is given in the environment as ``DISPATCH_<NAME>``."""

    @pydantic.model_validator(mode="after")
    def _together(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def handlers(self) -> HandlerSettings:
        """What a handler may read: a copy of its group alone, so that no password of the system is within reach."""
        return HandlerSettings.model_validate({name: getattr(self, name) for name in HandlerSettings.model_fields})


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
        environ: variables to read; the process's own by default. One that is empty is unset, and one that Kubernetes sets
            for a Service is not read.
        overrides: values by field name that win over the environment.

    Returns:
        The frozen settings.

    Raises:
        ConfigurationError: every problem, one a line, without any secret.
    """
    environ = os.environ if environ is None else environ
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and value.strip() and not foreign.is_service_link(name, value)
    }
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


@contextlib.contextmanager
def problems_exit() -> Iterator[None]:
    """For the entries of processes: a problem with the settings ends the process.

    Raises:
        SystemExit: 2; the problems are on standard error, one a line.
    """
    try:
        yield
    except ConfigurationError as exc:
        sys.stderr.write(f"{exc}\n")
        raise SystemExit(2) from None


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = f"; did you mean {PREFIX}{nearest[0].upper()}?" if nearest else ""
    return f"{PREFIX}{name.upper()}: no such setting{hint}"


def _problem(error: Any) -> str:
    names = [f"{PREFIX}{part.upper()}" for part in error["loc"][:1] if isinstance(part, str)]
    return ": ".join([*names, error["msg"].removeprefix("Value error, ")])


def _contradictions(settings: Settings) -> list[str]:
    """Settings that are each right and wrong together."""
    amqps = any(settings.broker(role).startswith("amqps:") for role in _ROLES)
    https = settings.management_url.get_secret_value().startswith("https:")
    keyed = bool(settings.api_keys or settings.api_keys_file)
    rediss = settings.redis_url.get_secret_value().startswith("rediss")
    checks = {
        f"{PREFIX}CONCURRENCY_MIN must not exceed {PREFIX}CONCURRENCY_MAX": settings.concurrency_min
        > settings.concurrency_max,
        f"{PREFIX}API_KEY_PEPPER is needed with {PREFIX}API_KEYS and {PREFIX}API_KEYS_FILE": keyed
        and settings.api_key_pepper is None,
        f"{PREFIX}HTTP_HOST {settings.http_host} is not loopback: set {PREFIX}API_KEYS (make one with `dispatch keys new`)": (
            not is_loopback(settings.http_host) and not keyed
        ),
        f"{PREFIX}FLOWER_HOST {settings.flower_host} is not loopback: set {PREFIX}FLOWER_BASIC_AUTH": (
            not is_loopback(settings.flower_host) and settings.flower_basic_auth is None
        ),
        # A record that goes before its last copy would let that copy run again.
        f"{PREFIX}RESULT_TTL must exceed the ladder's waits + {PREFIX}QUEUE_TTL + {PREFIX}LEASE": (
            settings.result_ttl
            <= sum(rung.seconds for rung in settings.ladder.rungs) + settings.queue_ttl + settings.lease
        ),
        # Certificates beside URLs without TLS: the password would go over the wire in clear, against all appearance.
        f"{PREFIX}BROKER_TLS_* have no effect: no URL is amqps:// or https://": (
            settings.broker_tls != Tls() and not amqps and not https
        ),
        f"{PREFIX}REDIS_TLS_* have no effect: {PREFIX}REDIS_URL is not rediss": settings.redis_tls != Tls()
        and not rediss,
    }
    return [text for text, wrong in checks.items() if wrong]
