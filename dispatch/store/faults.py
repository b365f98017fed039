"""What redis-py's errors mean: why Redis can't be used. The one place that knows their names and Redis's words."""

from __future__ import annotations

import redis
from redis.exceptions import RedisClusterException, ResponseError
from redis.sentinel import MasterNotFoundError

from dispatch.config import network
from dispatch.errors import Trouble

SERVER = "Redis"

FOREIGN = "something that is not Redis answers at its port"

#: In a pipeline, redis-py puts the command before Redis's error.
_PIPELINE_ERROR = " of pipeline caused error: "

#: Errors of a Redis that cannot serve at the moment, as redis-py names them; every other refusal is our mistake.
_BY_TYPE = (
    (redis.exceptions.OutOfMemoryError, "its memory is full (maxmemory)"),
    (redis.exceptions.NoPermissionError, "its user lacks a right"),
    (redis.exceptions.ReadOnlyError, "it is a replica and takes no writes"),
    (redis.exceptions.MasterDownError, "it is a replica without its master"),
    (redis.exceptions.ClusterDownError, "the cluster is down"),
    (redis.exceptions.TryAgainError, "the cluster moves this slot"),
    (redis.exceptions.BusyLoadingError, "it is loading its data"),
)

#: The same where redis-py has no class for it, or the error is an answer within a script's.
_BY_PREFIX = {
    "OOM ": "its memory is full (maxmemory)",
    "NOPERM ": "its user lacks a right",
    "READONLY ": "it is a replica and takes no writes",
    "MISCONF ": "it can't write to its disk",
    "BUSY ": "a script keeps it busy",
    "LOADING ": "it is loading its data",
    "NOREPLICAS ": "it has too few replicas to take writes",
    "max number of clients reached": "it has no room for another client",
    "DB index is out of range": "it has no database of that number",
    "This instance has cluster support disabled": "it is no Redis Cluster",
    "unknown command 'SENTINEL'": "no Sentinel answers at its port",
}


def trouble(exc: BaseException, where: str) -> Trouble | None:
    """Why Redis can't be used.

    Args:
        exc: what redis-py raised.
        where: what operators read about the server.

    Returns:
        The reason; None when Redis can be used, and refused a command that is wrong.
    """
    if isinstance(exc, ResponseError) and not isinstance(exc, redis.exceptions.AuthenticationError):
        reason = _refused(exc)
        return Trouble(SERVER, reason, where, network.words(exc), refuses=True) if reason else None
    return Trouble(SERVER, _unusable(exc), where, network.words(exc))


def _refused(exc: BaseException) -> str:
    found = next((reason for kind, reason in _BY_TYPE if isinstance(exc, kind)), "")
    text = str(exc).rpartition(_PIPELINE_ERROR)[2]
    return found or next((reason for prefix, reason in _BY_PREFIX.items() if text.startswith(prefix)), "")


def _unusable(exc: BaseException) -> str:
    for cause in network.causes(exc):
        if reason := _refused(cause) or _one(cause):
            return reason
    if reason := network.failure(exc):
        return reason
    return "no node of the cluster answers" if isinstance(exc, RedisClusterException) else type(exc).__name__


def _one(exc: BaseException) -> str:
    text = str(exc)
    if isinstance(exc, redis.exceptions.InvalidResponse):
        return FOREIGN
    if isinstance(exc, redis.exceptions.AuthenticationError):
        asked = "authenticated" in text or "Authentication required" in text
        return "it asks for a password" if asked else "it does not accept this user and password"
    if isinstance(exc, MasterNotFoundError) and exc.__cause__ is None:
        return "its Sentinels know no master of that name"
    return ""
