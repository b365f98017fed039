"""The processes of a stack and their addresses, from the settings."""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from dispatch.broker import connections, provision
from dispatch.config.groups import (
    AuditSettings,
    BrokerSettings,
    CallbackSettings,
    HandlerSettings,
    RecordSettings,
    RedisSettings,
    WorkerSettings,
)
from dispatch.config.settings import PREFIX, Settings, load
from dispatch.config.tls import BrokerAddress
from launcher import applications, datadir, environments, files, procfs, rabbitmq, redis
from launcher.errors import LaunchError
from launcher.layout import URL_KEYS
from launcher.ports import Ports
from launcher.processes import Spec
from launcher.rundir import RunDir

#: Settings that commands and workers in another shell must share with the stack: all of the ``env`` file, also those that have
#: their default, or a value of an earlier stack would survive in a shell that sources the file of the next one.
_SHARED = (
    BrokerSettings, RedisSettings, RecordSettings, AuditSettings, CallbackSettings, WorkerSettings, HandlerSettings,
)  # fmt: skip

#: One that a worker reads, of a group that is not shared; and one that each worker needs for itself.
_ALSO, _OWN = frozenset({"max_body"}), frozenset({"worker_metrics_port", "worker_metrics_host"})

_INSTALL = (
    "install them (Debian, Ubuntu: sudo apt-get install rabbitmq-server redis-server), "
    "or set the URLs of running servers in DISPATCH_BROKER_URL, DISPATCH_MANAGEMENT_URL and DISPATCH_REDIS_URL"
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The processes of a stack and its URLs."""

    specs: tuple[Spec, ...]
    env: Mapping[str, str]  #: content of the ``env`` file; URLs of processes that are not started are omitted
    own: Mapping[str, str]  #: settings made by the launcher: URLs of its own servers
    notes: tuple[str, ...]  #: notes for the user, one line each


def make(run: RunDir, ports: Ports, environ: Mapping[str, str], settings: Settings) -> Plan:
    """Plan a stack and write the configuration files of its servers.

    Args:
        run: its run directory.
        ports: its ports; held until `Ports.close`.
        environ: the environment of its processes; servers whose URLs it contains are used, not started.
        settings: read from that environment.

    Raises:
        LaunchError: a server is not installed or does not respond, or a port is taken.
    """
    return _Planner(run, ports, environ, settings).plan()


class _Planner:
    def __init__(self, run: RunDir, ports: Ports, environ: Mapping[str, str], settings: Settings) -> None:
        self._run = run
        self._explicit = {name for name in environ if name.startswith(PREFIX) and environ[name]}
        self._settings = settings
        self._ports = ports
        self._notes: list[str] = []
        self._own: dict[str, str] = {}
        self._base = {
            **{name: value for name, value in environ.items() if name not in URL_KEYS},
            procfs.MARKER: str(run.path),
            "PYTHONUNBUFFERED": "1",
            f"{PREFIX}RUN_DIR": str(run.path),
        }

    def plan(self) -> Plan:
        self._check_installed()
        data = self._data()
        servers = [*self._rabbitmq(data), *self._redis(data)]
        settings = self._settings
        flower_port = self._ports.claim("flower", settings.flower_port, settings.flower_host)
        host, http_port = settings.http_host, self._gateway_port()
        self._callbacks(applications.gateway_url(settings, host, http_port))
        metrics_port = self._ports.claim("worker-metrics", settings.worker_metrics_port, settings.worker_metrics_host)
        simulator = self._simulator()
        environ = {**self._base, f"{PREFIX}HTTP_PORT": str(http_port), f"{PREFIX}FLOWER_PORT": str(flower_port)}
        specs = (
            *servers,
            *simulator,
            applications.worker(
                settings,
                {**environments.only(environ, "worker"), f"{PREFIX}WORKER_METRICS_PORT": str(metrics_port)},
                self._run,
            ),
            applications.gateway(settings, environments.only(environ, "gateway"), host, http_port),
            applications.flower(environments.only(environ, "flower"), settings.flower_host, flower_port, self._run),
        )
        started = {spec.name for spec in specs}
        resolved = tuple(
            dataclasses.replace(spec, after=tuple(name for name in spec.after if name in started)) for spec in specs
        )
        return Plan(resolved, self._env(host, http_port, flower_port, metrics_port), self._own, tuple(self._notes))

    def _data(self) -> Path:
        """The data directory of the private servers; see `datadir`."""
        settings, home = self._settings, rabbitmq.home(self._base)
        release = home.name if home else ""
        wanted = datadir.DelayQueues.of(settings.ladder, settings.lease_park, release, settings.hold_ttl)
        data, notes = datadir.choose(self._run.path / "data", wanted)
        self._notes += notes
        return data

    def _check_installed(self) -> None:
        missing = []
        if f"{PREFIX}BROKER_URL" not in self._explicit and rabbitmq.home(self._base) is None:
            missing.append("rabbitmq-server")
        if f"{PREFIX}REDIS_URL" not in self._explicit and redis.program(self._base) is None:
            missing.append("redis-server")
        if missing:
            raise LaunchError(f"{' and '.join(missing)} not found: {_INSTALL}")

    def _rabbitmq(self, data: Path) -> list[Spec]:
        settings = self._settings
        if f"{PREFIX}BROKER_URL" in self._explicit:
            _check_broker(settings.address("worker"))
            self._notes.append(f"RabbitMQ: using {_redacted(settings.broker_url.get_secret_value())}, none is started")
            if f"{PREFIX}MANAGEMENT_URL" not in self._explicit:
                url = _redacted(settings.management_url.get_secret_value())
                self._notes.append(f"{PREFIX}MANAGEMENT_URL is not set: using {url}")
            return []
        specs = rabbitmq.specs(
            self._run,
            data,
            environments.only(self._base, "rabbitmq"),
            self._ports,
            consumer_timeout=settings.consumer_timeout,
            port=settings.rabbitmq_port,
            management_port=settings.rabbitmq_management_port,
        )
        broker_url = rabbitmq.broker_url(self._ports.claimed("rabbitmq"))
        management_url = rabbitmq.management_url(self._ports.claimed("management"))
        self._set(broker_url=broker_url, management_url=management_url)
        return specs

    def _redis(self, data: Path) -> list[Spec]:
        if f"{PREFIX}REDIS_URL" in self._explicit:
            url = self._settings.redis_url.get_secret_value()
            if (reason := redis.ping_probe(url, self._settings.redis_tls)()) is not None:
                raise LaunchError(f"{PREFIX}REDIS_URL: {reason}")
            self._notes.append(f"Redis: using {_redacted(url)}, none is started")
            return []
        spec = redis.spec(data, environments.only(self._base, "redis"), self._ports, port=self._settings.redis_port)
        self._set(redis_url=redis.redis_url(self._ports.claimed("redis")))
        return [spec]

    def _simulator(self) -> list[Spec]:
        if f"{PREFIX}ROBOT_API_URL" in self._explicit:
            self._notes.append(f"robot API: using {_redacted(self._settings.robot_api_url)}, no simulator is started")
            return []
        port = self._ports.claim("simulator", self._settings.simulator_port)
        # So that examples work; an operator's own list stays as it is, also an empty one.
        allowed = {} if f"{PREFIX}HTTP_ALLOWED_HOSTS" in self._base else {"http_allowed_hosts": f"127.0.0.1:{port}"}
        self._set(robot_api_url=f"http://127.0.0.1:{port}", **allowed)
        return [applications.simulator(self._settings, environments.only(self._base, "simulator"), port)]

    def _callbacks(self, gateway_url: str) -> None:
        """So that handlers have callback URLs; what an operator has set stays as it is, also an empty one."""
        if {f"{PREFIX}PUBLIC_URL", f"{PREFIX}CALLBACK_SECRETS"}.isdisjoint(self._base):
            path = self._run.path / "callback-secret"  # kept: URLs that were given out outlive a restart
            if not path.exists():
                files.write(path, secrets.token_hex(32), 0o600)
            self._set(public_url=gateway_url, callback_secrets=path.read_text())

    def _gateway_port(self) -> int:
        settings, host = self._settings, self._settings.http_host
        if f"{PREFIX}HTTP_PORT" in self._explicit or self._ports.hold(settings.http_port, host):
            return self._ports.claim("gateway", settings.http_port, host)
        port = self._ports.claim("gateway", 0, host)
        self._notes.append(f"port {settings.http_port} is taken: the gateway uses {port}")
        return port

    def _set(self, **values: str) -> None:
        """Apply settings made by the launcher: to itself and to every process."""
        self._own.update({f"{PREFIX}{name.upper()}": value for name, value in values.items()})
        self._base.update(self._own)
        self._settings = load(self._base)

    def _env(self, host: str, http_port: int, flower_port: int, metrics_port: int) -> dict[str, str]:
        settings = self._settings
        return {
            **shared(settings),
            "DISPATCH_HTTP_URL": applications.gateway_url(settings, host, http_port),
            "FLOWER_URL": applications.base_url(settings.flower_host, flower_port),
            "ROBOT_API_URL": settings.robot_api_url,
            "WORKER_METRICS_URL": f"{applications.base_url(settings.worker_metrics_host, metrics_port)}/metrics",
        }


def shared(settings: Settings) -> dict[str, str]:
    """The settings of the ``env`` file as variables; one that is unset is empty, which is the same to every process."""
    names = {name for group in _SHARED for name in group.model_fields} | _ALSO
    return {
        f"{PREFIX}{name.upper()}": _text(getattr(settings, name))
        for name in Settings.model_fields
        if name in names and name not in _OWN
    }


def _text(value: Any) -> str:
    """A setting as the environment spells it."""
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}" if float(f"{value:g}") == value else repr(value)
        case tuple():
            return ",".join(value)
    return str(value)


def _check_broker(address: BrokerAddress) -> None:
    """An external broker must respond and have its vhost: the launcher creates vhosts in its own server only."""
    try:
        with connections.connection(address, connect_timeout=3) as connection:
            provision.connect(connection, address)
    except provision.BrokerUnreachable as exc:
        raise LaunchError(f"{PREFIX}BROKER_URL: {exc}") from exc


def _redacted(url: str) -> str:
    """One or more URLs without passwords."""
    return re.sub(r"(://[^:/@;]*):[^@;]*@", r"\1:…@", url)
