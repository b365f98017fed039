"""Variables of others in the environment: those of libraries that would win over our settings, and Kubernetes' service links.

Celery reads ``CELERY_BROKER_URL`` before its own configuration, click every option of every command as ``CELERY_…``, and
Flower every option as ``FLOWER_…``; gunicorn reads a whole command line, ``GUNICORN_CMD_ARGS``. Where several projects share an
environment, a worker of ours would follow another project's broker. What is honoured on purpose, and why, is in
docs/reference/environment.md. Kubernetes sets variables for each Service of a namespace, named after it:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import MutableMapping


@dataclasses.dataclass(frozen=True, slots=True)
class Libraries:
    """Variables that the libraries of a process read, and that would win over our settings or change what they mean."""

    prefixes: tuple[str, ...]
    names: frozenset[str]


#: Of `celery …`: the worker, Flower and our commands.
CELERY = Libraries(
    ("CELERY_", "FLOWER_"),
    frozenset({"BROKER_URL", "RESULT_BACKEND", "LOADER", "CONFIG_MODULE", "SKIP_CHECKS", "AUTOSCALE_KEEPALIVE"}),
)

#: Of the gateway: gunicorn's and Flask's beside Celery's, whose client makes the messages. `SCRIPT_NAME` would be the prefix of
#: every path, `FORWARDED_ALLOW_IPS` whose headers make a request one of HTTPS.
GATEWAY = Libraries(
    (*CELERY.prefixes, "FLASK_"),
    CELERY.names | {"GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "PORT", "SENDFILE", "SCRIPT_NAME"},
)

#: The setting of ours that counts instead.
_INSTEAD = {
    "CELERY_BROKER_URL": "DISPATCH_BROKER_URL", "CELERY_BROKER_READ_URL": "DISPATCH_BROKER_URL",
    "CELERY_BROKER_WRITE_URL": "DISPATCH_BROKER_URL", "BROKER_URL": "DISPATCH_BROKER_URL",
    "FLOWER_PORT": "DISPATCH_FLOWER_PORT", "FLOWER_ADDRESS": "DISPATCH_FLOWER_HOST",
    "FLOWER_BASIC_AUTH": "DISPATCH_FLOWER_BASIC_AUTH", "FLOWER_BROKER_API": "DISPATCH_MANAGEMENT_URL",
    "PORT": "DISPATCH_HTTP_PORT", "WEB_CONCURRENCY": "DISPATCH_HTTP_WORKERS",
    "GUNICORN_CMD_ARGS": "options on gunicorn's command line",
}  # fmt: skip

#: Of `.run/env`, not of Flower.
_OURS = frozenset({"FLOWER_URL", "FLOWER_PID"})

_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")
_LINK_URL = re.compile(r"(tcp|udp|sctp)://")


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set a variable, for a Service whose name begins like our settings.

    Args:
        name: e.g. ``DISPATCH_PORT``, or ``DISPATCH_FLOWER_PORT``, which is a setting, too.
        value: e.g. ``tcp://10.96.0.7:8080``, which no setting takes.
    """
    found = _SERVICE_LINK.search(name)
    if found is None:
        return False
    return bool(_LINK_URL.match(value)) or found[1] != "PORT"


def drop(environ: MutableMapping[str, str], libraries: Libraries = CELERY) -> list[str]:
    """Take the variables of libraries out of an environment, before the libraries read them.

    Args:
        environ: changed in place.
        libraries: those of the process.

    Returns:
        What is ignored, a line each, without a value.
    """
    dropped = [
        name
        for name in sorted(environ)
        if (name.startswith(libraries.prefixes) or name in libraries.names) and name not in _OURS
    ]
    for name in dropped:
        del environ[name]
    return [f"{name} is ignored{f': set {_INSTEAD[name]}' if name in _INSTEAD else ''}" for name in dropped]
