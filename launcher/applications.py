"""The project's own processes: gateway, worker, Flower and the robot simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import amqp.exceptions
import kombu

from dispatch.broker import connections, provision
from dispatch.config.settings import Settings
from dispatch.config.tls import BrokerAddress
from launcher.layout import ROOT
from launcher.processes import PROBE_TIMEOUT, START, Spec, all_of, http_probe, tcp_probe
from launcher.rundir import RunDir

_SERVERS = ("rabbitmq", "redis")


def base_url(host: str, port: int, scheme: str = "http") -> str:
    """The URL, from this machine, of a server bound to an address."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def gateway_url(settings: Settings, host: str, port: int) -> str:
    """The gateway's URL, from this machine."""
    return base_url(host, port, "https" if settings.http_tls_cert else "http")


def gateway(settings: Settings, environ: Mapping[str, str], host: str, port: int) -> Spec:
    """The HTTP gateway under gunicorn, which reads its address from the environment.

    Args:
        settings: whether it speaks HTTPS.
        environ: the complete environment of the process.
        host: address to bind.
        port: port to bind.
    """
    url = gateway_url(settings, host, port)
    # A probe has no certificate to present.
    ready = tcp_probe(host, port) if settings.http_tls_client_ca else http_probe(f"{url}/readyz")
    # Shorter than in production, where a restart must not interrupt streams and long polls.
    options = ("-c", "python:dispatch.gateway.gunicorn_conf", "--graceful-timeout", "5", "--no-control-socket")
    return Spec(
        name="gateway",
        command=(sys.executable, "-m", "gunicorn", *options, "app:create_app()"),
        environ=environ,
        directory=ROOT,
        ready=all_of(ready),
        pid_key="GATEWAY_PID",
        after=_SERVERS,
        grace=8.0,
        address=url,
    )


def worker(settings: Settings, environ: Mapping[str, str], run: RunDir) -> Spec:
    """The Celery worker.

    Args:
        settings: broker, concurrency and grace period.
        environ: the complete environment of the process.
        run: its key is part of the node name.
    """
    # The broker rejects (405) a node name whose previous connection it has not closed yet.
    node = f"worker@{run.key}-{START}"
    if settings.worker_pool == "threads":
        size, shown = "--pool=threads", f"{settings.worker_threads} threads"
    else:
        size = f"--autoscale={settings.concurrency_max},{settings.concurrency_min}"
        shown = f"{settings.concurrency_min} to {settings.concurrency_max} processes"
    return Spec(
        name="worker",
        command=(
            *(sys.executable, "-m", "celery", "-A", "celery_app", "worker"),
            *(size, "-l", "info", "-n", node, "-E"),
        ),
        # Celery's soft shutdown handles SIGQUIT only.
        environ={**environ, "REMAP_SIGTERM": "SIGQUIT"},
        directory=ROOT,
        ready=_control_queue_exists(settings.address("worker"), f"{node}.celery.pidbox"),
        pid_key="WORKER_PID",
        after=_SERVERS,
        grace=settings.soft_shutdown + 5.0,
        address=shown,
    )


def flower(environ: Mapping[str, str], host: str, port: int, run: RunDir) -> Spec:
    """Flower, which reads its address, its password and the management URL from the environment.

    Args:
        environ: the complete environment of the process.
        host: address to bind.
        port: port to bind.
        run: has the file of what it has seen.
    """
    url = base_url(host, port)
    kept = ("--persistent=true", f"--db={run.flower}")
    return Spec(
        name="flower",
        command=(sys.executable, "-m", "celery", "-A", "celery_app", "flower", "--conf=flowerconfig.py", *kept),
        environ=environ,
        directory=ROOT,
        ready=all_of(http_probe(f"{url}/healthcheck")),
        pid_key="FLOWER_PID",
        after=_SERVERS,
        address=url,
    )


def simulator(settings: Settings, environ: Mapping[str, str], port: int) -> Spec:
    """The robot vendor's API with failure injection.

    Args:
        settings: client credentials that it accepts.
        environ: the complete environment of the process.
        port: port to bind.
    """
    secret = settings.robot_client_secret.get_secret_value()
    options = (
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--client-id", settings.robot_client_id),
    )
    return Spec(
        name="simulator",
        command=(sys.executable, "-m", "examples.robot_simulator", *options),
        environ={**environ, "ROBOT_SIMULATOR_SECRET": secret},
        directory=ROOT,
        ready=all_of(http_probe(f"http://127.0.0.1:{port}/healthz")),
        pid_key="SIMULATOR_PID",
        address=f"http://127.0.0.1:{port}",
    )


def _control_queue_exists(address: BrokerAddress, pidbox: str) -> Callable[[str], str | None]:
    """Ready when the worker's control queue exists, which it declares last, after its consumers."""

    def ready(start: str) -> str | None:
        queue = pidbox.replace(START, start)
        options = {"connect_timeout": PROBE_TIMEOUT, "read_timeout": PROBE_TIMEOUT, "write_timeout": PROBE_TIMEOUT}
        try:
            with connections.connection(address, transport_options=options) as connection:
                provision.connect(connection, address)
                connection.default_channel.queue_declare(queue, passive=True)
        except amqp.exceptions.ResourceLocked:
            return None  # it exists, exclusive to the worker
        except (provision.BrokerUnreachable, amqp.exceptions.AMQPError, kombu.exceptions.KombuError, OSError) as exc:
            return f"{queue} does not exist: {exc}"
        return None

    return ready
