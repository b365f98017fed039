"""A private Redis: own data, loopback only, and the durability that the records need."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import redis

from dispatch.store import client as redisclient
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


def ping_probe(url: str) -> Probe:
    """Ready when Redis answers a PING, its data loaded.

    Args:
        url: of the Redis.
    """

    def probe() -> str | None:
        client = redisclient.connect(url, PROBE_TIMEOUT)
        try:
            client.run([("PING",)])
        except (redis.RedisError, OSError) as exc:
            return f"Redis does not answer: {exc}"
        finally:
            client.close()
        return None

    return probe


def spec(data: Path, environ: Mapping[str, str], ports: Ports, *, port: int = 0) -> Spec:
    """The process of a private Redis, with its directory made.

    Args:
        data: the directory in which it gets one of its own.
        environ: the environment to start it in.
        ports: where its port is remembered.
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
    accounts.hand_over(directory, account)
    options = {
        "bind": "127.0.0.1",
        "port": str(number),
        "dir": str(directory),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file is the one truth; no snapshots beside it
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",  # a title would overwrite the marker in the environment
    }
    return Spec(
        name="redis",
        command=(executable, *(word for name, value in options.items() for word in (f"--{name}", value))),
        environ=environ,
        directory=directory,
        ready=all_of(ping_probe(redis_url(number))),
        pid_key="REDIS_PID",
        grace=10.0,
        address=f"127.0.0.1:{number}",
        account=account,
    )
