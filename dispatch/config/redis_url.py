"""URLs of a single Redis, of a master monitored by Sentinels, or of a Redis Cluster. Pure.

::

    redis://[user:password@]host:port/database
    redis+sentinel://[user:password@]host:port,host:port,…/service[/database]
    redis+cluster://[user:password@]host:port,host:port,…

``rediss`` instead of ``redis`` is TLS, ``unix`` a socket. User and password are those of the servers; the query has
options of redis-py, e.g. ``ssl_ca_certs``; ``sentinel_username`` and ``sentinel_password`` are those of the Sentinels.
"""

from __future__ import annotations

import dataclasses
import enum
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

SENTINEL, CLUSTER = "+sentinel", "+cluster"

SCHEMES = ("redis", "rediss", "unix", *(f"{tls}{kind}" for kind in (SENTINEL, CLUSTER) for tls in ("redis", "rediss")))

_DEFAULT_PORTS = {"": 6_379, SENTINEL: 26_379, CLUSTER: 6_379}
_SENTINEL_PREFIX = "sentinel_"


class RedisKind(enum.Enum):
    """The kind of deployment that a URL names."""

    SINGLE = enum.auto()
    SENTINEL = enum.auto()
    CLUSTER = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL."""

    kind: RedisKind
    url: str = dataclasses.field(repr=False)  #: of one server, for redis-py: credentials, database and options
    nodes: tuple[tuple[str, int], ...] = ()  #: Sentinels, or some nodes of the cluster
    service: str = ""  #: the master's name among the Sentinels
    sentinel: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)  #: the Sentinels' credentials


def parse(text: str) -> Address:
    """Parse a URL.

    Args:
        text: the URL.

    Returns:
        Its parts.

    Raises:
        ValueError: it is not of the forms above; the message has no secret.
    """
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in SCHEMES:
        msg = f"must be a URL that starts with one of {', '.join(SCHEMES)}"
        raise ValueError(msg)
    tls, plus, kind = scheme.partition("+")
    parts = urlsplit(text)
    if not plus:
        _check_single(text, parts.path if scheme == "unix" else parts.hostname)
        return Address(RedisKind.SINGLE, text)
    credentials, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _DEFAULT_PORTS[plus + kind]) for host in hosts.split(","))
    service, _, database = parts.path.strip("/").partition("/") if plus + kind == SENTINEL else ("", "", parts.path)
    if plus + kind == SENTINEL and not service:
        msg = "needs the service's name after the Sentinels: redis+sentinel://host:port,host:port/service"
        raise ValueError(msg)
    if plus + kind == CLUSTER and database.strip("/") not in ("", "0"):
        msg = "a Redis Cluster has no databases: omit the path"
        raise ValueError(msg)
    options = dict(parse_qsl(parts.query))
    sentinel = {
        name.removeprefix(_SENTINEL_PREFIX): options.pop(name)
        for name in list(options)
        if name.startswith(_SENTINEL_PREFIX)
    }
    place = f"{credentials}{at}{_shown(nodes[0])}"
    url = urlunsplit((tls, place, f"/{database.strip('/') or '0'}", urlencode(options), ""))
    return Address(RedisKind.SENTINEL if service else RedisKind.CLUSTER, url, nodes, service, sentinel)


def _check_single(text: str, place: str | None) -> None:
    if not place:
        msg = "names no server"
        raise ValueError(msg)
    _node(urlsplit(text).netloc.rpartition("@")[2] or "localhost", 0)


def _node(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        msg = "the port must be a number up to 65535"
        raise ValueError(msg) from exc
    if not host:
        msg = "names no server, or has an extra comma"
        raise ValueError(msg)
    return host, port or default


def _shown(node: tuple[str, int]) -> str:
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
