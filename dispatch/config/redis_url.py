"""URLs of a single Redis, of a master monitored by Sentinels, or of a Redis Cluster. Pure.

::

    redis://[user:password@]host:port/database
    redis+sentinel://[user:password@]host:port,host:port,…/service[/database]
    redis+cluster://[user:password@]host:port,host:port,…

``rediss`` instead of ``redis`` is TLS, ``unix`` a socket. User and password are those of the servers;
``sentinel_username`` and ``sentinel_password`` in the query are those of the Sentinels. `OPTIONS` are the other options.
"""

from __future__ import annotations

import dataclasses
import enum
from urllib.parse import SplitResult, urlencode, urlsplit, urlunsplit

from dispatch.config import urls

SENTINEL, CLUSTER = "+sentinel", "+cluster"

SCHEMES = ("redis", "rediss", "unix", *(f"{tls}{kind}" for kind in (SENTINEL, CLUSTER) for tls in ("redis", "rediss")))

#: Options of redis-py that a URL may have. Others would override time limits, the decoding, or the verification of names.
OPTIONS = frozenset({"client_name", "db", "protocol", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})

_DEFAULT_PORTS = {"": 6_379, SENTINEL: 26_379, CLUSTER: 6_379}
_SENTINEL_PREFIX = "sentinel_"
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")


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
    parts = urls.split(text, SCHEMES)
    tls, plus, kind = parts.scheme.partition("+")
    urls.check_options(parts, {*OPTIONS, *(_SENTINEL_OPTIONS if plus + kind == SENTINEL else ())})
    if not plus:
        _check_single(parts)
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
    _check_database(database)
    options = urls.options(parts)
    sentinel = {
        name.removeprefix(_SENTINEL_PREFIX): options.pop(name)
        for name in list(options)
        if name.startswith(_SENTINEL_PREFIX)
    }
    place = f"{credentials}{at}{_shown(nodes[0])}"
    url = urlunsplit((tls, place, f"/{database.strip('/') or '0'}", urlencode(options), ""))
    return Address(RedisKind.SENTINEL if service else RedisKind.CLUSTER, url, nodes, service, sentinel)


def _check_single(parts: SplitResult) -> None:
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        msg = "names no server"
        raise ValueError(msg)
    urls.check_port(parts)
    if parts.scheme != "unix":
        _check_database(parts.path)
    _check_database(urls.options(parts).get("db", ""))


def _check_database(text: str) -> None:
    """redis-py takes a path that is no number for database 0."""
    if text.strip("/") and not text.strip("/").isdecimal():
        msg = "the database must be a number"
        raise ValueError(msg)


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
