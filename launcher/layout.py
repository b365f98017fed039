"""The names of a stack: its processes, their order, its files' place. Imports nothing heavy, so commands are quick."""

from __future__ import annotations

import enum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  #: where ``app.py`` and ``celery_app.py`` are

SERVERS = ("epmd", "rabbitmq", "redis")
APPLICATIONS = ("worker", "gateway", "flower")
ALL = (*SERVERS, "simulator", *APPLICATIONS)

#: What one word means on the command line.
GROUPS = {"all": ALL, "servers": SERVERS, "apps": APPLICATIONS}

#: The order in which a stack is stopped: who takes work in first, servers last.
STOP_ORDER = (("gateway", "flower"), ("worker",), ("simulator",), ("redis", "rabbitmq"), ("epmd",))

#: In the ``env`` file, but no settings: an environment that sourced it has them.
URL_KEYS = ("DISPATCH_HTTP_URL", "FLOWER_URL", "ROBOT_API_URL", "WORKER_METRICS_URL")


class State(enum.StrEnum):
    """Where a process is."""

    WAITING = "waiting"  #: for the processes it needs
    STARTING = "starting"  #: runs, does not answer yet
    READY = "ready"
    BACKOFF = "restarting"  #: died, is started again in a moment
    STOPPING = "stopping"  #: was asked to stop
    STOPPED = "stopped"
