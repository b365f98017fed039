"""What each process may see of the settings: its own secrets, and no others'. Pure.

A process's environment is readable by its user (``/proc/<pid>/environ``) and by whatever runs in it, a task's handler
or a library included.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatch.config.settings import PREFIX

#: The processes that need each secret, and each setting that is invalid without one. What is not listed, all may see.
OWNERS: Mapping[str, frozenset[str]] = {
    "broker_url": frozenset({"gateway", "worker", "flower"}),
    "gateway_broker_url": frozenset({"gateway"}),
    "worker_broker_url": frozenset({"worker"}),
    "replay_broker_url": frozenset({"worker"}),
    "monitor_broker_url": frozenset({"flower"}),
    "control_broker_url": frozenset({"flower"}),
    "message_keys": frozenset({"gateway", "worker"}),
    "encryption_keys": frozenset({"gateway", "worker"}),
    "callback_secrets": frozenset({"gateway", "worker"}),
    "admin_broker_url": frozenset(),
    "management_url": frozenset({"gateway", "worker", "flower"}),
    "redis_url": frozenset({"gateway", "worker"}),
    "redis_tls_ca": frozenset({"gateway", "worker"}),
    "redis_tls_cert": frozenset({"gateway", "worker"}),
    "redis_tls_key": frozenset({"gateway", "worker"}),
    "api_keys": frozenset({"gateway"}),
    "api_keys_file": frozenset({"gateway"}),
    "api_key_pepper": frozenset({"gateway"}),
    "http_host": frozenset({"gateway"}),
    "robot_client_secret": frozenset({"worker"}),
    "webhook_secrets": frozenset({"gateway", "worker"}),
    "flower_basic_auth": frozenset({"flower"}),
    "flower_host": frozenset({"flower"}),
}

#: The roles at RabbitMQ of each process; the first one's URL stands in for the common one.
_ROLES = {"gateway": ("gateway",), "worker": ("worker", "replay"), "flower": ("control",)}

#: A role without a URL of its own is another one first.
_INSTEAD = {"control": "monitor"}

_BROKER = f"{PREFIX}BROKER_URL"


def only(environ: Mapping[str, str], process: str) -> dict[str, str]:
    """The environment of a process.

    Args:
        environ: of the whole stack.
        process: ``gateway``, ``worker``, ``flower``; any other gets no secret at all.

    Returns:
        `environ` without the settings of other processes. The common broker URL gives way to the process's own when each of
        its roles has one.
    """
    kept = {name: value for name, value in environ.items() if process in OWNERS.get(_setting(name), {process})}
    own = [_url(kept, role) or _url(kept, _INSTEAD.get(role, "")) for role in _ROLES.get(process, ())]
    if own and all(own):
        kept[_BROKER] = own[0]
    # Settings refuse certificates without a URL that uses them.
    urls = [
        value
        for name, value in kept.items()
        if name.startswith(PREFIX) and name.endswith(("BROKER_URL", "MANAGEMENT_URL"))
    ]
    if not any(url.startswith(("amqps:", "https:")) for url in urls):
        kept = {name: value for name, value in kept.items() if not name.startswith(f"{PREFIX}BROKER_TLS_")}
    return kept


def _url(environ: Mapping[str, str], role: str) -> str:
    return environ.get(f"{PREFIX}{role.upper()}_BROKER_URL", "")


def _setting(name: str) -> str:
    return name.removeprefix(PREFIX).lower() if name.startswith(PREFIX) else ""
