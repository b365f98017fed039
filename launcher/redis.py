"""A private Redis: its own data, loopback only, with the durability that the records need."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import redis

from dispatch.config import network
from dispatch.config.tls import Tls
from dispatch.store import client as redisclient
from dispatch.store import faults
from launcher import accounts
from launcher.errors import LaunchError
from launcher.ports import Ports
from launcher.processes import PROBE_TIMEOUT, Probe, Spec, all_of


def program(environ: Mapping[str, str]) -> str | None:
    """The path of ``redis-server``; None when it is not installed."""
    return shutil.which("redis-server", path=environ.get("PATH"))


def redis_url(port: int) -> str:
    """The URL of a private Redis."""
    return f"redis://127.0.0.1:{port}/0"


def ping_probe(url: str, tls: Tls | None = None) -> Probe:
    """Ready when Redis responds to PING, with its data loaded.

    Args:
        url: URL of the Redis.
        tls: for ``rediss``.
    """

    def probe() -> str | None:
        client = redisclient.connect(url, PROBE_TIMEOUT, tls)
        try:
            client.run([("PING",)])
        except (redis.RedisError, OSError) as exc:
            return str(faults.trouble(exc, network.shown(url)) or exc)
        finally:
            client.close()
        return None

    return probe


def spec(data: Path, environ: Mapping[str, str], ports: Ports, *, port: int = 0) -> Spec:
    """The process of a private Redis; creates its directory.

    Args:
        data: parent of its directory.
        environ: the environment of the process.
        ports: claims its port.
        port: its port; 0 chooses one.

    Raises:
        LaunchError: Redis is not installed, or the port is taken.
    """
    executable = program(environ)
    if executable is None:
        raise LaunchError("Redis is not installed")
    number = ports.claim("redis", port)
    directory = data / "redis"
    directory.mkdir(exist_ok=True)
    account = accounts.choose("redis", directory)
    accounts.assign(directory, account)
    options = {
        "bind": "127.0.0.1",
        "port": str(number),
        "dir": str(directory),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # persistence by the append-only file only, no snapshots
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",  # setting the title would overwrite the marker in the environment
    }
    return Spec(
        name="redis",
        command=(executable, *(argument for name, value in options.items() for argument in (f"--{name}", value))),
        environ=environ,
        directory=directory,
        ready=all_of(ping_probe(redis_url(number))),
        pid_key="REDIS_PID",
        grace=10.0,
        address=f"127.0.0.1:{number}",
        account=account,
    )
