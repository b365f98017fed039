"""The names of a stack: processes, their order, states. Imports nothing heavy, so that commands start fast."""

from __future__ import annotations

import enum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  #: where ``app.py`` and ``celery_app.py`` are

#: Whether these are the files of a checkout, with its Makefile, and not of an installed package.
CHECKOUT = (ROOT / "pyproject.toml").is_file()

SERVERS = ("epmd", "rabbitmq", "redis")
APPLICATIONS = ("worker", "gateway", "flower")
ALL = (*SERVERS, "simulator", *APPLICATIONS)

#: Groups of processes on the command line.
GROUPS = {"all": ALL, "servers": SERVERS, "apps": APPLICATIONS}

#: The order in which a stack is stopped: the processes that accept work first, servers last.
STOP_ORDER = (("gateway", "flower"), ("worker",), ("simulator",), ("redis", "rabbitmq"), ("epmd",))

#: Variables of the ``env`` file that are not settings; an environment that sourced it contains them.
URL_KEYS = ("DISPATCH_HTTP_URL", "FLOWER_URL", "ROBOT_API_URL", "WORKER_METRICS_URL")


def command(verb: str) -> str:
    """What a user types for a verb.

    Args:
        verb: e.g. ``up``.
    """
    return f"make {verb}" if CHECKOUT else f"dispatch {verb}"


class ProcessState(enum.StrEnum):
    """The state of a supervised process."""

    WAITING = "waiting"  #: for the processes it depends on
    STARTING = "starting"  #: running, not ready yet
    READY = "ready"
    BACKOFF = "restarting"  #: died, restarts after a delay
    STOPPING = "stopping"  #: terminated, not exited yet
    STOPPED = "stopped"
