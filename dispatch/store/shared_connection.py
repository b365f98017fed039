"""One Redis connection for every caller of a process: commands go out together, answers come back in their order.

No thread belongs to it. The first caller of a turn of the event loop writes what all of that turn have to send; the one that
has waited longest reads for all, and hands that over when its own answers are there. So each caller waits once, for its last
answer, whether the process has threads or greenlets.

What a broken connection means for each command on it, as with redis-py's pool:

- it was closed (a restart, a failover): one more try on a new connection; every script of ours is safe to repeat;
- nothing came for the timeout: the outcome of all that wait is unknown, and none tries again;
- answers come, but those of others, for the timeout: Redis is slower than its callers are many. The outcome of those who have
  waited so long is unknown; the others wait on.
"""

from __future__ import annotations

import collections
import errno
import itertools
import math
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import hiredis
import redis
from redis.connection import SSLConnection
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import InvalidResponse, ReadOnlyError
from redis.exceptions import TimeoutError as Silent
from redis.sentinel import SentinelManagedConnection

#: What hiredis answers while the next answer is not whole.
_INCOMPLETE = object()

#: Bytes that are read at once.
_READ = 65_536


class SharedConnection:
    """Runs commands for many callers at once over one connection, which is made when it is first used. Thread-safe.

    Args:
        client: redis-py's, of one server or a Sentinels' master: it makes the connections and knows how answers are read.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._readings = dict(client.response_callbacks)
        self._begin()

    @staticmethod
    def fits(client: redis.Redis) -> bool:
        """Whether a client's connections can be shared: OpenSSL lets only one at a time into a connection."""
        return not issubclass(client.connection_pool.connection_class, SSLConnection)

    def run(self, steps: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `dispatch.store.client.Client.run`; raises redis-py's errors."""
        packed = b"".join([hiredis.pack_command(step) for step in steps])
        try:
            answers = self._usable().ask(packed, len(steps))
        except _Closed:
            answers = self._usable().ask(packed, len(steps))
        for at, answer in enumerate(answers):
            reading = self._readings.get(steps[at][0])
            if reading is not None and not isinstance(answer, Exception):
                answers[at] = reading(answer)  # as redis-py gives it
        return answers

    def close(self) -> None:
        """Close the connection; what is in flight has failed."""
        current = self._current
        if current is not None and self._pid == os.getpid():
            current.end(Disconnected("the connection was closed"))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._current: _OpenConnection | None = None
        self._opening: Future[_OpenConnection] | None = None

    def _usable(self) -> _OpenConnection:
        """The open connection. Those who come while it is being made share the outcome: none waits for a second attempt."""
        if self._pid != os.getpid():
            self._begin()  # a parent's connection, and locks that its threads held
        current = self._current
        if current is not None and current.open:
            return current
        with self._lock:
            if self._current is not None and self._current.open:
                return self._current
            opening, mine = self._opening, self._opening is None
            if opening is None:
                opening = self._opening = Future()
        return self._open(opening) if mine else opening.result()

    def _open(self, opening: Future[_OpenConnection]) -> _OpenConnection:
        try:
            current = _OpenConnection(self._pool, self._pool.get_connection())
        except BaseException as exc:
            self._opened(None)
            opening.set_exception(exc if isinstance(exc, redis.RedisError) else Disconnected("not connected to Redis"))
            raise
        self._opened(current)
        opening.set_result(current)
        return current

    def _opened(self, current: _OpenConnection | None) -> None:
        with self._lock:
            self._current, self._opening = current, None


def _brief_lock() -> threading.Lock:
    """A lock that is never held across a wait: a greenlet never finds it taken, and needs none of gevent's, which take longer."""
    monkey = sys.modules.get("gevent.monkey")
    made: threading.Lock = (monkey.get_original("_thread", "allocate_lock") if monkey else threading.Lock)()
    return made


class _Closed(Disconnected):
    """A connection that was open has been closed: worth one more try."""


def _because(cause: BaseException, kind: type[redis.RedisError]) -> redis.RedisError:
    """What ends a connection; `dispatch.store.faults` finds the reason in the cause."""
    error = kind(f"no answer: {cause}" if kind is Silent else f"connection lost: {cause}")
    error.__cause__ = cause
    return error


class _Call:
    """Commands of one caller, and what came of them."""

    __slots__ = ("answers", "done", "error", "gone", "missing", "reads", "since", "wake")

    def __init__(self, count: int) -> None:
        self.since = time.monotonic()
        self.missing = count
        self.answers: list[Any] = []
        self.error: Exception | None = None
        self.done = False  #: answered, or failed
        self.reads = False  #: it reads for all, or is to begin
        self.gone = False  #: its caller waits no more
        self.wake: threading.Lock | None = None  #: of a caller that waits: released when it is done, or to read

    @property
    def over(self) -> bool:
        """Whether its caller has nothing to wait for."""
        return self.done or self.error is not None

    def prepare(self) -> threading.Lock:
        """Make what its caller waits for; the connection's lock is held."""
        self.wake = threading.Lock()
        self.wake.acquire()
        return self.wake

    def rouse(self) -> None:
        """End its wait, if there is one; the connection's lock is held."""
        if self.wake is not None:
            self.wake.release()
            self.wake = None


class _OpenConnection:
    """One connection, from its handshake to its end."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self._connection = connection
        self._timeout: float | None = connection.socket_timeout  # seconds
        self._sock = connection._sock  # noqa: SLF001 - redis-py has made it: address, TLS, AUTH, database
        self._from_sentinel = isinstance(connection, SentinelManagedConnection)
        parse_error = connection._parser.parse_error  # noqa: SLF001 - the classes of errors
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parse_error, encoding="utf-8", notEnoughData=_INCOMPLETE
        )
        self._buffer = bytearray(_READ)
        self._lock = _brief_lock()  # of what follows
        self._out: list[bytes] = []
        self._pending: collections.deque[_Call] = collections.deque()
        self._attended = False  # a caller reads, or is to begin
        self._writing = threading.Lock()
        self.open = True

    def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send commands, and wait for all of their answers.

        Args:
            packed: the commands.
            count: how many they are.

        Returns:
            The answers; an error that is one stands in its place.

        Raises:
            _Closed: the connection is closed; the outcome is unknown, as far as the commands were sent.
            Silent: no answer came in time: the outcome is unknown.
        """
        call = _Call(count)
        with self._lock:
            if not self.open:
                raise _Closed("connection lost")
            first = not self._out
            self._out.append(packed)
            self._pending.append(call)
        try:
            if first:
                self._write()
            self._wait(call)
        except BaseException:
            self._leave(call)
            raise
        if call.error is not None:
            raise type(call.error)(str(call.error)) from call.error
        return call.answers

    def end(self, error: Exception) -> None:
        """Close the connection: everything on it has failed."""
        with self._lock:
            if not self.open:
                return
            self.open = False
            for call in self._pending:
                call.error, call.done = call.error or error, True
                call.rouse()
            self._pending.clear()
            self._out.clear()
        self._connection.disconnect()
        self._pool.release(self._connection)

    # --- writing ---------------------------------------------------------------------------------------
    def _write(self) -> None:
        """Write what has come together. A caller that is ended here must not leave the others' commands behind."""
        try:
            time.sleep(0)  # every caller that is ready in this turn adds its own
        finally:
            with self._writing:  # in the order in which the answers will come
                with self._lock:
                    data = b"".join(self._out)
                    self._out.clear()
                if data:
                    self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data)  # `sendall` asks for the size of the socket's buffer first
            if sent < len(data):
                self._sock.sendall(data[sent:])
        except TimeoutError as exc:
            self.end(_because(exc, Silent))
        except OSError as exc:
            self.end(_because(exc, _Closed))
        except BaseException as exc:  # perhaps half a command is out
            self.end(_because(exc, _Closed))
            raise

    # --- reading ---------------------------------------------------------------------------------------
    def _wait(self, call: _Call) -> None:
        wake = None
        with self._lock:
            if not (self._attended or call.over):
                self._attended = call.reads = True
            if not (call.reads or call.over):
                wake = call.prepare()
        if wake is not None:
            wake.acquire()
        if call.reads:
            self._read_until(call)
            self._hand_over(call)

    def _read_until(self, call: _Call) -> None:
        """Read for all until a call has its answers."""
        try:
            while not call.over:
                size = self._receive()
                if not size:
                    raise ConnectionResetError(errno.ECONNRESET, "end of the stream")
                self._reader.feed(self._buffer, 0, size)  # type: ignore[arg-type]
                self._take()
                self._expire()
        except TimeoutError as exc:
            self.end(_because(exc, Silent))
        except (OSError, UnicodeError, redis.RedisError) as exc:
            self.end(_because(exc, _Closed))

    def _receive(self) -> int:
        """Bytes that have come into the buffer."""
        try:
            return int(self._sock.recv_into(self._buffer))
        except TimeoutError:
            if not self.open:  # another caller has closed it, which ends no read of a thread
                raise
            if not self._arrived():
                raise
            return int(self._sock.recv_into(self._buffer))

    def _arrived(self) -> bool:
        """Whether there is something to read: a process that was held up itself finds its time over, and the answers there."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def _take(self) -> None:
        """Hand out the answers that are whole."""
        while (answer := self._reader.gets()) is not _INCOMPLETE:
            if isinstance(answer, Exception):
                self._check(answer)
            elif isinstance(answer, hiredis.PushNotification):
                continue
            try:
                call = self._pending[0]
            except IndexError:  # the connection has been ended
                return
            call.answers.append(answer)
            call.missing -= 1
            if not call.missing:
                self._finish(call)

    def _expire(self) -> None:
        """Fail those who have waited for too long, the first come first; their answers are thrown away when they come."""
        before = time.monotonic() - (self._timeout or math.inf)
        with self._lock:
            late = [
                call for call in itertools.takewhile(lambda call: call.since < before, self._pending) if not call.over
            ]
        if not late or self._arrived():
            return
        with self._lock:
            for call in late:
                if not call.over:
                    call.error, call.gone = _because(TimeoutError("those to others took the time"), Silent), True
                    call.rouse()

    def _check(self, answer: Exception) -> None:
        """Raise what is no answer to a command but the end of the connection."""
        if isinstance(answer, Disconnected):  # it loads its data, or has too many clients
            raise answer
        if self._from_sentinel and isinstance(answer, ReadOnlyError):
            raise Disconnected("the previous master is a replica now") from answer

    def _finish(self, call: _Call) -> None:
        with self._lock:
            if not call.done:
                self._pending.popleft()
                call.done = True
                call.rouse()

    def _hand_over(self, call: _Call) -> None:
        """Appoint the next reader, if there is anything left to read."""
        with self._lock:
            call.reads = False
            following = next((one for one in self._pending if not (one.gone or one is call)), None)
            self._attended = following is not None
            if following is not None:
                following.reads = True
                following.rouse()

    def _leave(self, call: _Call) -> None:
        """Its caller was ended while it waited: others read its answers, which are thrown away."""
        with self._lock:
            call.gone = True
            reads = call.reads
        if reads:
            self._hand_over(call)
