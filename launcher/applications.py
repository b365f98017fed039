"""The project's own processes: gateway, worker, Flower and the robot simulator."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import amqp.exceptions
import kombu

from dispatch.broker import provision
from dispatch.config.settings import Settings
from launcher.layout import ROOT
from launcher.processes import PROBE_TIMEOUT, START, Spec, all_of, http_probe
from launcher.rundir import RunDir

_SERVERS = ("rabbitmq", "redis")


def base_url(host: str, port: int) -> str:
    """The URL of something that was bound to an address, from this machine."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{own}]:{port}" if ":" in own else f"http://{own}:{port}"


def gateway(environ: Mapping[str, str], host: str, port: int) -> Spec:
    """The HTTP gateway under gunicorn, which reads its address from the environment.

    Args:
        environ: the environment to start it in.
        host: the address it binds.
        port: the port it binds.
    """
    url = base_url(host, port)
    # Shorter than in production, where streams and long polls must not be cut off by a restart.
    options = ("-c", "python:dispatch.gateway.gunicorn_conf", "--graceful-timeout", "5", "--no-control-socket")
    return Spec(
        name="gateway",
        command=(sys.executable, "-m", "gunicorn", *options, "app:create_app()"),
        environ=environ,
        directory=ROOT,
        ready=all_of(http_probe(f"{url}/readyz")),
        pid_key="GATEWAY_PID",
        after=_SERVERS,
        grace=8.0,
        address=url,
    )


def worker(settings: Settings, environ: Mapping[str, str], run: RunDir) -> Spec:
    """The Celery worker.

    Args:
        settings: its broker, its processes and its grace.
        environ: the environment to start it in.
        run: whose key is part of its name.
    """
    # A name that the broker still knows from a connection not yet given up is refused (405).
    node = f"worker@{run.key}-{START}"
    autoscale = f"--autoscale={settings.concurrency_max},{settings.concurrency_min}"
    return Spec(
        name="worker",
        command=(
            *(sys.executable, "-m", "celery", "-A", "celery_app", "worker"),
            *(autoscale, "-l", "info", "-n", node, "-E"),
        ),
        # Celery's soft shutdown works on SIGQUIT only.
        environ={**environ, "REMAP_SIGTERM": "SIGQUIT"},
        directory=ROOT,
        ready=_answers_control(settings.broker("worker"), f"{node}.celery.pidbox"),
        pid_key="WORKER_PID",
        after=_SERVERS,
        grace=settings.soft_shutdown + 5.0,
        address=f"{settings.concurrency_min} to {settings.concurrency_max} processes",
    )


def flower(environ: Mapping[str, str], host: str, port: int) -> Spec:
    """Flower, which reads its address, its password and the management API's from the environment.

    Args:
        environ: the environment to start it in.
        host: the address it binds.
        port: the port it binds.
    """
    url = base_url(host, port)
    return Spec(
        name="flower",
        command=(sys.executable, "-m", "celery", "-A", "celery_app", "flower", "--conf=flowerconfig.py"),
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
        settings: the client it admits.
        environ: the environment to start it in.
        port: the port to bind.
    """
    secret = settings.robot_client_secret.get_secret_value()
    own = (
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--client-id", settings.robot_client_id),
    )
    return Spec(
        name="simulator",
        command=(sys.executable, "-m", "examples.robot_simulator", *own),
        environ={**environ, "ROBOT_SIMULATOR_SECRET": secret},
        directory=ROOT,
        ready=all_of(http_probe(f"http://127.0.0.1:{port}/healthz")),
        pid_key="SIMULATOR_PID",
        address=f"http://127.0.0.1:{port}",
    )


def _answers_control(url: str, pidbox: str) -> Callable[[str], str | None]:
    """Ready when the worker's control queue is there, which it opens last, after its consumers."""

    def ready(start: str) -> str | None:
        queue = pidbox.replace(START, start)
        options = {"connect_timeout": PROBE_TIMEOUT, "read_timeout": PROBE_TIMEOUT, "write_timeout": PROBE_TIMEOUT}
        try:
            with kombu.Connection(url, transport_options=options) as connection:
                provision.connect(connection)
                connection.default_channel.queue_declare(queue, passive=True)
        except amqp.exceptions.ResourceLocked:
            return None  # it is there, and exclusive to the worker
        except (provision.BrokerUnreachable, amqp.exceptions.AMQPError, kombu.exceptions.KombuError, OSError) as exc:
            return f"{queue} is not there: {exc}"
        return None

    return ready
