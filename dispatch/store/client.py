"""A client of one Redis, of a master behind Sentinels, or of a Redis Cluster: commands in, answers or redis-py's errors out.

With one server, or one master, a list of commands is one round trip, over a pool of connections or one that all callers
share (`dispatch.store.shared_connection`). The keys of a list may lie on several nodes of a
cluster: there an ordered list goes step by step, and one whose order does not matter to all nodes at once.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisClusterException
from redis.exceptions import TimeoutError as Silent
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from dispatch.config.redis_url import Address, RedisKind, parse
from dispatch.config.tls import OLDEST, Tls
from dispatch.store.shared_connection import SharedConnection

RedisCommand = tuple[Any, ...]

#: Seconds before a cluster that did not answer is looked up again.
_PAUSE = 0.5


class Client(Protocol):
    """Thread-safe; connects when it is first used."""

    shared: bool  #: all callers have one connection
    clustered: bool  #: keys lie on several nodes, so that a script can have those of one slot only

    def run(self, steps: Sequence[RedisCommand]) -> list[Any]:
        """Commands in their order; their answers. An error that is the answer to one command stands in its place."""

    def gather(self, steps: Sequence[RedisCommand]) -> list[Any]:
        """Commands that do not depend on each other's order; their answers in the order of the commands."""

    def pubsub(self) -> redis.client.PubSub:
        """A subscription to be made."""

    def info(self, section: str) -> list[dict[str, Any]]:
        """INFO's section of each writable node."""

    def close(self) -> None:
        """Close every connection."""


def connect(url: str, timeout: float, tls: Tls | None = None, *, share: bool = False) -> Client:
    """A client for a URL; nothing is sent yet.

    Args:
        url: see `dispatch.config.redis_url`.
        timeout: seconds for each answer of a server, and for connecting to it.
        tls: for ``rediss``; the URL's own options take precedence.
        share: have all callers use one connection, where that is possible: not with TLS, nor in a cluster.

    Returns:
        The client.

    Raises:
        ValueError: the URL is none of ours.
    """
    address = parse(url)
    trust = _trust(tls or Tls()) if url.startswith("rediss") else {}
    if address.kind is RedisKind.CLUSTER:
        return _Cluster(address, timeout, trust)
    make = _master if address.kind is RedisKind.SENTINEL else _single
    client = make(address, timeout, trust)
    return _SharedServer(client) if share and SharedConnection.fits(client) else _SingleServer(client)


def _trust(tls: Tls) -> dict[str, Any]:
    """Of a client that verifies chain and name, as redis-py takes it; the authorities come beside the system's."""
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    return {"ssl_min_version": OLDEST, **{name: path for name, path in files.items() if path}}


def _options(timeout: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "decode_responses": True, "driver_info": None}


def _once_more() -> Retry:
    """One more try on a connection that a restart has closed; none after a silence: its outcome is unknown."""
    return Retry(NoBackoff(), 1, supported_errors=(Disconnected,))


def _single(address: Address, timeout: float, trust: Mapping[str, Any]) -> redis.Redis:
    options = {**trust, **_options(timeout)}  # the URL's own win in redis-py
    client: redis.Redis = redis.Redis.from_url(address.url, **options, retry=_once_more(), retry_on_error=[])
    return client


def _own(address: Address, trust: Mapping[str, Any]) -> dict[str, Any]:
    """The URL's credentials, database and options, as redis-py takes them."""
    own = dict(parse_url(address.url))  # type: ignore[no-untyped-call]
    tls = own.pop("connection_class", None) is not None
    return {
        **trust,
        **{name: value for name, value in own.items() if name not in ("host", "port")},
        **({"ssl": True} if tls else {}),
    }


class _Disconnecting:
    """redis-py keeps a connection to a Sentinel's master after a silence: a late answer would be the next command's."""

    def read_response(self, *args: Any, **options: Any) -> Any:
        options.setdefault("disconnect_on_error", True)
        return super().read_response(*args, **options)  # type: ignore[misc]


class _MasterConnection(_Disconnecting, SentinelManagedConnection):
    pass


class _MasterTlsConnection(_Disconnecting, SentinelManagedSSLConnection):
    pass


class _Sentinels(Sentinel):
    """redis-py drops why no Sentinel answered: here that is the cause of the error."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._failure: Exception | None = None
        for sentinel in self.sentinels:
            sentinel.sentinel_masters = functools.partial(self._masters, sentinel.sentinel_masters)  # type: ignore[method-assign]

    def _masters(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except redis.RedisError as exc:
            self._failure = exc
            raise

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as exc:
            raise exc from self._failure


def _master(address: Address, timeout: float, trust: Mapping[str, Any]) -> redis.Redis:
    """The master, asked for at each connection; all Sentinels together get the time that one server gets."""
    share = timeout / len(address.nodes)
    own = _own(address, trust)
    tls = {name: value for name, value in own.items() if name.startswith("ssl")}
    sentinels = _Sentinels(
        address.nodes,
        sentinel_kwargs={
            **tls,
            **address.sentinel,
            "socket_timeout": share,
            "socket_connect_timeout": share,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    client: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        address.service,
        connection_class=_MasterTlsConnection if tls else _MasterConnection,
        **own,
        **_options(timeout),
        retry=_once_more(),
        retry_on_error=[],
    )
    return client


class _SingleServer:
    """One server, or the one master.

    Args:
        client: redis-py's.
    """

    shared = clustered = False

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def run(self, steps: Sequence[RedisCommand]) -> list[Any]:
        if len(steps) == 1:
            return [_answer(lambda: self._redis.execute_command(*steps[0]))]  # type: ignore[no-untyped-call]
        pipe = self._redis.pipeline(transaction=False)
        for step in steps:
            pipe.execute_command(*step)  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)

    def gather(self, steps: Sequence[RedisCommand]) -> list[Any]:
        return self.run(steps)

    def pubsub(self) -> redis.client.PubSub:
        subscription: redis.client.PubSub = self._redis.pubsub()  # type: ignore[no-untyped-call]
        return subscription

    def info(self, section: str) -> list[dict[str, Any]]:
        return self.run([("INFO", section)])

    def close(self) -> None:
        self._redis.close()


class _SharedServer(_SingleServer):
    """The same, with one connection for all commands; a subscription has its own.

    Args:
        client: redis-py's.
    """

    shared = True

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self._connection = SharedConnection(client)

    def run(self, steps: Sequence[RedisCommand]) -> list[Any]:
        return self._connection.run(steps)

    def close(self) -> None:
        self._connection.close()
        super().close()


class _Cluster:
    """A Redis Cluster, looked up at the first use and after each disconnection.

    Args:
        address: some of its nodes.
        timeout: seconds for each answer of a node.
        trust: redis-py's options of TLS.
    """

    shared, clustered = False, True

    def __init__(self, address: Address, timeout: float, trust: Mapping[str, Any]) -> None:
        self._address = address
        self._trust = trust
        self._timeout = timeout
        self._lock = threading.Lock()
        self._found: Any = None
        self._failed_at = -_PAUSE

    def run(self, steps: Sequence[RedisCommand]) -> list[Any]:
        cluster = self._cluster()

        def carried_out(step: RedisCommand) -> Any:
            return _patiently(functools.partial(cluster.execute_command, *step))

        return [_answer(functools.partial(carried_out, step)) for step in steps]

    def gather(self, steps: Sequence[RedisCommand]) -> list[Any]:
        cluster = self._cluster()

        def whole() -> list[Any]:
            pipe = cluster.pipeline()
            for step in steps:
                pipe.execute_command(*step)
            answers: list[Any] = pipe.execute(raise_on_error=False)
            return answers

        return _patiently(whole) if len(steps) > 1 else self.run(steps)

    def pubsub(self) -> redis.client.PubSub:
        subscription: redis.client.PubSub = self._cluster().pubsub()
        return subscription

    def info(self, section: str) -> list[dict[str, Any]]:
        cluster = self._cluster()
        return [
            _patiently(lambda node=node: cluster.execute_command("INFO", section, target_nodes=node))
            for node in cluster.get_primaries()
        ]

    def close(self) -> None:
        with self._lock:
            if self._found is not None:
                self._found.close()

    def _cluster(self) -> Any:
        with self._lock:
            if self._found is None:
                # Those who waited for the lock must not each wait for the same silent nodes.
                if time.monotonic() - self._failed_at < _PAUSE:
                    raise Disconnected("the Redis Cluster did not answer a moment ago")
                try:
                    self._found = self._look_up()
                except RedisClusterException as exc:
                    self._failed_at = time.monotonic()
                    raise Disconnected(f"no node of the Redis Cluster answers: {exc}") from exc
            return self._found

    def _look_up(self) -> Any:
        own = _own(self._address, self._trust)
        own.pop("db", None)
        return RedisCluster(
            startup_nodes=[ClusterNode(*node) for node in self._address.nodes],  # type: ignore[no-untyped-call]
            # Slots without a node are the cluster's to answer for: those of others can be served.
            require_full_coverage=False,
            retry=Retry(NoBackoff(), 0),
            **own,
            # A node that is silent costs a wait, and then one for each silent node that is asked where the slots are.
            **_options(self._timeout / 2),
        )


def _answer(call: Callable[[], Any]) -> Any:
    """What a command answers; a script that this server does not have is an answer, too."""
    try:
        return call()
    except NoScriptError as exc:
        return exc


def _patiently(call: Any) -> Any:
    """Once more after a disconnection, upon which redis-py has looked the cluster up anew; never after a silence."""
    try:
        return _translated(call)
    except Disconnected:
        return _translated(call)


def _translated(call: Any) -> Any:
    """redis-py's errors of a cluster as a whole are no RedisErrors; here no node could be asked: don't try again."""
    try:
        return call()
    except RedisClusterException as exc:
        raise Silent(str(exc)) from exc
