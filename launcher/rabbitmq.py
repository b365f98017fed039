"""A private RabbitMQ: its own node name, data, cookie, name server (epmd) and loopback ports."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from launcher import accounts, files
from launcher.errors import LaunchError
from launcher.ports import Ports
from launcher.processes import Spec, all_of, http_probe, tcp_probe
from launcher.rundir import RunDir

VHOST = "robot"
USER, PASSWORD = "guest", "guest"  # RabbitMQ's default user, which it accepts from loopback only

_INSTALLED = "/usr/lib/rabbitmq/lib"
_MISSING = "RabbitMQ is not installed"

#: By default RabbitMQ retries rejected dead-lettering every 180 s, 32 messages at a time: too slow for a delay queue.
#: 4.3 holds the deliveries of consumers on a lost node for 60 s; the leases allow less. Not in rabbitmq.conf, which has no
#: keys for the first two, and with which a release without the third would not start.
_ADVANCED = (
    "[{rabbit,[{dead_letter_worker_publisher_confirm_timeout,30000},{dead_letter_worker_consumer_prefetch,256},"
    "{consumer_disconnected_timeout,5000}]}].\n"
)

#: Two schedulers that sleep when idle: a development server shares the machine.
_ERLANG = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"


def home(environ: Mapping[str, str]) -> Path | None:
    """Where RabbitMQ is installed.

    Args:
        environ: its ``RABBITMQ_HOME`` overrides the system's RabbitMQ.

    Returns:
        The directory that contains ``sbin/rabbitmq-server``; None without it or without Erlang.
    """
    override = environ.get("RABBITMQ_HOME")
    candidates = [Path(override)] if override else sorted(Path(_INSTALLED).glob("rabbitmq_server-*"), reverse=True)
    installed = next((path for path in candidates if (path / "sbin" / "rabbitmq-server").exists()), None)
    path = environ.get("PATH")
    return installed if shutil.which("erl", path=path) and shutil.which("epmd", path=path) else None


def broker_url(port: int, vhost: str = VHOST) -> str:
    """The AMQP URL of a private RabbitMQ."""
    return f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/{quote(vhost, safe='')}"


def management_url(port: int) -> str:
    """The management API's URL of a private RabbitMQ."""
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"


@dataclasses.dataclass(frozen=True)
class RabbitNode:
    """One RabbitMQ node: its name, files and ports."""

    name: str  #: Erlang node name, e.g. ``rabbit-1@localhost``
    directory: Path
    amqp: int
    http: int
    distribution: int
    epmd: int
    cookie: str = ""  #: shared by the nodes of a cluster; empty generates one
    cluster: tuple[str, ...] = ()  #: names of all nodes of its cluster


def specs(
    run: RunDir,
    data: Path,
    environ: Mapping[str, str],
    ports: Ports,
    *,
    consumer_timeout: float,
    port: int = 0,
    management_port: int = 0,
) -> list[Spec]:
    """The two processes of a private RabbitMQ; writes their files.

    Args:
        run: its key is part of the node name.
        data: parent of their directory.
        environ: the environment of the processes.
        ports: claims their ports.
        consumer_timeout: seconds for which a consumer may hold a message.
        port: AMQP port; 0 chooses one.
        management_port: port of the management API; 0 chooses one.

    Returns:
        Erlang's name server, then RabbitMQ.

    Raises:
        LaunchError: RabbitMQ is not installed, or a port is taken.
    """
    if home(environ) is None:
        raise LaunchError(_MISSING)
    node = RabbitNode(
        name=f"rabbit-{run.key}@localhost",
        directory=data / "rabbitmq",
        amqp=ports.claim("rabbitmq", port),
        http=ports.claim("management", management_port),
        distribution=ports.claim("erlang"),
        epmd=ports.claim("epmd"),
    )
    return [name_server(node, environ), server(node, environ, consumer_timeout=consumer_timeout)]


def name_server(node: RabbitNode, environ: Mapping[str, str]) -> Spec:
    """The process of a name server (epmd), shared by the nodes of a cluster.

    Args:
        node: one of the nodes.
        environ: the environment of the process.
    """
    return Spec(
        name="epmd",
        command=("epmd", "-address", "127.0.0.1", "-port", str(node.epmd)),
        environ=_erlang(environ, node),
        directory=node.directory.parent,
        ready=all_of(tcp_probe("127.0.0.1", node.epmd)),
        address=f"127.0.0.1:{node.epmd}",
        account=accounts.choose("rabbitmq", node.directory),
    )


def server(node: RabbitNode, environ: Mapping[str, str], *, consumer_timeout: float, name: str = "rabbitmq") -> Spec:
    """The process of a node; writes its files.

    Args:
        node: the node.
        environ: the environment of the process.
        consumer_timeout: seconds for which a consumer may hold a message.
        name: name of the process.

    Raises:
        LaunchError: RabbitMQ is not installed.
    """
    installed = home(environ)
    if installed is None:
        raise LaunchError(_MISSING)
    account = accounts.choose("rabbitmq", node.directory)
    _write_files(node, consumer_timeout)
    accounts.assign(node.directory, account)
    return Spec(
        name=name,
        command=(str(installed / "sbin" / "rabbitmq-server"),),
        environ={**_erlang(environ, node), **_environment(node)},
        directory=node.directory,
        ready=all_of(
            http_probe(f"http://127.0.0.1:{node.http}/api/vhosts/{VHOST}", (USER, PASSWORD)),
            tcp_probe("127.0.0.1", node.amqp),
        ),
        pid_key="RABBITMQ_PID",
        after=("epmd",),
        grace=30.0,
        address=f"127.0.0.1:{node.amqp}, management http://127.0.0.1:{node.http}",
        account=account,
    )


def _environment(node: RabbitNode) -> dict[str, str]:
    directory = node.directory
    return {
        "HOME": str(directory),  # Erlang reads its cookie from here
        "RABBITMQ_NODENAME": node.name,
        "RABBITMQ_DIST_PORT": str(node.distribution),
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "config"),
        "RABBITMQ_SCHEMA_DIR": str(directory / "schema"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
        # The script then execs the Erlang VM instead of waiting for it in a shell: one pid.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _write_files(node: RabbitNode, consumer_timeout: float) -> None:
    directory = node.directory
    directory.mkdir(parents=True, exist_ok=True)
    cookie = directory / ".erlang.cookie"
    if not cookie.exists():
        files.write(cookie, node.cookie or secrets.token_hex(20), 0o400)
    files.write(directory / "enabled_plugins", "[rabbitmq_management].\n")
    files.write(directory / "advanced.config", _ADVANCED)
    peers = "".join(
        f"cluster_formation.classic_config.nodes.{number} = {peer}\n" for number, peer in enumerate(node.cluster, 1)
    )
    files.write(
        directory / "rabbitmq.conf",
        f"listeners.tcp.1 = 127.0.0.1:{node.amqp}\n"
        "management.tcp.ip = 127.0.0.1\n"
        f"management.tcp.port = {node.http}\n"
        f"default_vhost = {VHOST}\n"
        f"consumer_timeout = {round(consumer_timeout * 1_000)}\n"
        "collect_statistics_interval = 1000\n"
        # Quorum queues keep their write-ahead log in memory up to this size; 512 MB by default.
        f"raft.wal_max_size_bytes = 67108864\n{peers}",
    )


def _erlang(environ: Mapping[str, str], node: RabbitNode) -> dict[str, str]:
    return {**_without_rabbitmq(environ), "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(node.epmd)}


def _without_rabbitmq(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without RABBITMQ_* of the system's server and without systemd's socket."""
    return {
        name: value for name, value in environ.items() if not name.startswith("RABBITMQ_") and name != "NOTIFY_SOCKET"
    }
