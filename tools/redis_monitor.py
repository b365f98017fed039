"""Which Lua files Redis runs, and when: its MONITOR stream, matched with the scripts of a checkout."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping

import redis

_COMMAND = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_COMMENT = re.compile(r"--.*")


class RedisMonitor:
    """Listens to every command of a Redis server until the server ends.

    Args:
        url: the server's.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=None)  # silent while idle
        self._runs: list[tuple[float, str]] = []
        self._sources: dict[str, str] = {}
        self._ready = threading.Event()

    def start(self) -> None:
        """Listen in the background; returns once the server reports every later command."""
        threading.Thread(target=self._listen, name="redis-monitor", daemon=True).start()
        if not self._ready.wait(30):
            raise TimeoutError("Redis did not answer MONITOR")

    def runs(self) -> list[tuple[float, str]]:
        """Each script that ran: seconds of the monotonic clock, and its digest."""
        return list(self._runs)

    def names(self, scripts: Mapping[str, str]) -> dict[str, list[str]]:
        """The files that each script consists of, by its digest.

        Args:
            scripts: text by file name.
        """
        return {sha: sorted(_parts(source, scripts)) or [f"script {sha[:8]}"] for sha, source in self._sources.items()}

    def _listen(self) -> None:
        stream = self._client.monitor()  # type: ignore[no-untyped-call]
        with contextlib.suppress(redis.RedisError, OSError), stream as monitor:
            self._ready.set()
            while True:
                self._note(monitor.connection.read_response())

    def _note(self, line: bytes) -> None:
        words = [_unescaped(word) for word in _COMMAND.findall(line.decode("latin-1"))]
        match [words[0].upper() if words else "", *words[1:]]:
            case ["EVALSHA", sha, *_]:
                self._runs.append((time.monotonic(), sha.lower()))
            case ["EVAL", source, *_]:
                self._runs.append((time.monotonic(), self._learn(source)))
            case ["SCRIPT", verb, source] if verb.upper() == "LOAD":
                self._learn(source)

    def _learn(self, source: str) -> str:
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._sources[sha] = source
        return sha


def _unescaped(word: str) -> str:
    """An argument in MONITOR's output, whose bytes beyond ASCII are escaped, as text."""
    return word.encode("latin-1").decode("unicode_escape").encode("latin-1").decode("utf-8", "replace")


def _parts(source: str, scripts: Mapping[str, str]) -> Iterator[str]:
    """The files whose whole text, comments and spaces apart, is in a script."""
    whole = _squeezed(source)
    for name, text in scripts.items():
        if (part := _squeezed(text)) and part in whole:
            yield name


def _squeezed(text: str) -> str:
    return "".join(_COMMENT.sub("", text).split())
