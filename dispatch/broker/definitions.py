"""RabbitMQ's ``definitions.json``: the map, and the users with the least rights that each role needs.

The file in ``deploy/rabbitmq`` is the map alone. The one that a container loads at its start also has
the users; it is made from the roles' own broker URLs, so no password is ever written twice, or committed.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import unquote, urlsplit

from dispatch.broker.management import policy_body, vhost
from dispatch.broker.model import BrokerMap
from dispatch.config.groups import BrokerSettings
from dispatch.config.settings import PREFIX
from dispatch.errors import ConfigurationError
from dispatch.protocol import names

#: What Celery itself declares, writes and reads: remote control, its replies, events.
CELERY = r"(.+\.)?(reply\.)?celery\.pidbox|celeryev(\..+)?"

NOTHING = "^$"

#: The exchanges of the delay levels.
DELAYS = rf"{re.escape(names.delay_exchange(0)[:-1])}\d+"

#: The routing keys that reach the work queue, as its binding has them.
ROUTED = f"^{re.escape(names.ROUTING_KEY)}(\\..+)?$"


def only(*names: str, also: str = "") -> str:
    """A pattern that matches these names and nothing else (RabbitMQ searches: an unanchored one matches parts)."""
    return f"^({'|'.join([*map(re.escape, names), *([also] if also else [])])})$"


@dataclasses.dataclass(frozen=True, slots=True)
class Role:
    """What a process may do in the vhost, as patterns of exchange and queue names."""

    name: str
    purpose: str
    configure: str = NOTHING  #: declare and delete
    write: str = NOTHING  #: publish, bind a queue, ask for a queue's depth
    read: str = NOTHING  #: consume, get, purge
    topic: tuple[tuple[str, str], ...] = ()  #: exchange and the routing keys that may be published to it
    tags: tuple[str, ...] = ()  #: rights in the management API


ROLES = (
    Role(
        "gateway",
        "publishes tasks, at once or for later, asks for the work queue's depth; consumes nothing",
        write=only(names.TASK_EXCHANGE, names.WORK_QUEUE, also=DELAYS),
        topic=((names.TASK_EXCHANGE, ROUTED),),
    ),
    Role(
        "worker",
        "consumes the work queue and the recorder queue, publishes to the rungs and the DLX",
        configure=only(also=CELERY),
        write=only(names.RETRY_EXCHANGE, names.DEAD_EXCHANGE, also=CELERY),
        read=only(names.WORK_QUEUE, names.RECORDER_QUEUE, also=CELERY),
    ),
    Role(
        "monitor",
        "reads the management API: rates, depths, drift, the queue view; publishes and consumes nothing",
        tags=("monitoring",),
    ),
    Role(
        "control",
        "Flower, `celery inspect`, `celery control`: remote control and the workers' events; may not use the management API",
        configure=only(also=CELERY),
        write=only(also=CELERY),
        read=only(also=CELERY),
    ),
    Role(
        "replay",
        "reads the DLQ, removes stale dead letters, sends dead letters and lost tasks again, and what handlers submit",
        write=only(names.TASK_EXCHANGE, names.DEAD_QUEUE, also=DELAYS),
        read=only(names.DEAD_QUEUE),
        topic=((names.TASK_EXCHANGE, ROUTED),),
    ),
    Role(
        "admin",
        "applies the topology, sets policies, migrates queues",
        configure=f"^{re.escape(names.PREFIX)}.*$",
        write=f"^{re.escape(names.PREFIX)}.*$",
        read=f"^{re.escape(names.PREFIX)}.*$",
        tags=("policymaker", "monitoring"),
    ),
)


def roles(wanted: BrokerMap) -> tuple[Role, ...]:
    """The roles, with their rights on the work queues of all lanes."""
    work = [queue.name for queue in wanted.queues if names.is_work_queue(queue.name)]
    one, all_of_them = re.escape(names.WORK_QUEUE), "|".join(map(re.escape, work or [names.WORK_QUEUE]))

    def widened(pattern: str) -> str:
        return re.sub(rf"(?<=[(|]){re.escape(one)}(?=[|)])", lambda _: all_of_them, pattern)

    return tuple(dataclasses.replace(role, write=widened(role.write), read=widened(role.read)) for role in ROLES)


def definitions(wanted: BrokerMap, settings: BrokerSettings, *, users: bool = False) -> dict[str, Any]:
    """What RabbitMQ's ``load_definitions`` reads.

    Args:
        wanted: the map.
        settings: the roles' broker URLs, whose vhost is meant.
        users: whether to add the users of the roles, with the names and passwords of their URLs.

    Returns:
        A dict for JSON. With users in it RabbitMQ makes no ``guest``.

    Raises:
        ConfigurationError: two roles share a user, so neither would have the least rights.
    """
    where = {"vhost": vhost(settings)}
    found: dict[str, Any] = {
        "vhosts": [{"name": where["vhost"]}],
        "exchanges": [{**where, **dataclasses.asdict(exchange)} for exchange in wanted.exchanges],
        "queues": [{**where, **dataclasses.asdict(queue)} for queue in wanted.queues],
        "bindings": [
            {
                **where,
                "source": binding.exchange,
                "destination": binding.queue,
                "destination_type": binding.to,
                "routing_key": binding.routing_key,
                "arguments": dict(binding.arguments),
            }
            for binding in wanted.bindings
        ],
        "policies": [{**where, "name": policy.name, **policy_body(policy)} for policy in wanted.policies],
    }
    return {**found, **_users(wanted, settings, where)} if users else found


def _users(wanted: BrokerMap, settings: BrokerSettings, where: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"users": [], "permissions": [], "topic_permissions": []}
    for role in roles(wanted):
        name, password = _credentials(settings, role.name)
        if name in [user["name"] for user in found["users"]]:
            raise ConfigurationError(f"{PREFIX}{role.name.upper()}_BROKER_URL: another role has the user {name!r} too")
        found["users"].append({
            "name": name, "tags": list(role.tags),
            "password_hash": password_hash(password), "hashing_algorithm": "rabbit_password_hashing_sha256",
        })  # fmt: skip
        rights = {"configure": role.configure, "write": role.write, "read": role.read}
        found["permissions"].append({**where, "user": name, **rights})
        for exchange, keys in role.topic:
            found["topic_permissions"].append(
                {**where, "user": name, "exchange": exchange, "write": keys, "read": NOTHING}
            )
    return found


def _credentials(settings: BrokerSettings, role: str) -> tuple[str, str]:
    url = urlsplit(settings.broker(role).split(";", maxsplit=1)[0])
    if not url.username or not url.password:
        raise ConfigurationError(f"{PREFIX}{role.upper()}_BROKER_URL needs a user and a password")
    return unquote(url.username), unquote(url.password)


def password_hash(password: str, salt: bytes | None = None) -> str:
    """A password as RabbitMQ stores it: base64 of salt + SHA-256(salt + password) (RabbitMQ docs, "Passwords").

    Args:
        password: in the clear.
        salt: four bytes; random ones by default.
    """
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
