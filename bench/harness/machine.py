"""The machine and the versions, for the head of the results."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from bench.harness.servers import ROOT, BenchServers

_PEERS = ("aio-pika", "celery", "dramatiq", "fastapi", "flask", "gunicorn", "redis", "uvicorn", "uvloop")
_OURS = ("celery", "flask", "gevent", "gunicorn", "kombu", "redis")


def described(servers: BenchServers) -> dict[str, str]:
    """What the results depend on."""
    with servers.management() as api:
        rabbitmq = api.get("/api/overview").raise_for_status().json()
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "RabbitMQ": f"{rabbitmq['rabbitmq_version']}, Erlang {rabbitmq['erlang_version']}",
        "Redis": str(servers.redis(0).info("server")["redis_version"]),
        "ours": f"commit {_commit()}, {_versions(Path(sys.executable), _OURS)}",
        "peers": _versions(ROOT / ".run" / "bench-venv" / "bin" / "python", _PEERS),
    }


def load() -> float:
    """The load of the last minute."""
    return os.getloadavg()[0]


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _versions(python: Path, packages: tuple[str, ...]) -> str:
    code = "import importlib.metadata, json, sys; print(json.dumps([importlib.metadata.version(name) for name in sys.argv[1:]]))"
    try:
        done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not installed"
    return ", ".join(f"{name} {version}" for name, version in zip(packages, json.loads(done.stdout), strict=True))
