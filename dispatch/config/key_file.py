"""The file of API keys (``DISPATCH_API_KEYS_FILE``): one entry a line, read as a whole or not at all.

A user who can write it can admit any client, so it is trusted as sshd trusts ``authorized_keys``: it must belong to root or
to this user, and neither it nor its directory may be writable by others. Reading it is of no use: it holds HMACs of random
secrets. A symbolic link is followed, since Kubernetes mounts secrets behind one; what counts is the file that was opened.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dispatch.config import api_keys
from dispatch.config.api_keys import ApiKey
from dispatch.errors import DispatchError

#: Bytes of the file at most: some 9,000 API keys.
LARGEST = 1_048_576

#: Secrets of one id: the one in use, and the next.
SECRETS = 2

#: Problems that one error lists.
_MAX_PROBLEMS = 10

#: Seconds to wait for another writer.
PATIENCE = 5.0

HEADER = "# API keys of Robot Dispatch: <id>:<hmac>:<scope>+<scope> [expires=<time>]; written by `dispatch keys`."

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class KeyFileUnusable(DispatchError):
    """The file of API keys can't be used: correct it; what was read before stays in force."""


class KeyFileBusy(DispatchError):
    """Another command is changing the file of API keys: try again."""


def read(path: str) -> bytes:
    """The file's bytes, if it may be trusted.

    Args:
        path: of the file.

    Raises:
        KeyFileUnusable: it can't be read, or others can write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # no wait for a pipe's writer
        try:
            raw = _read(descriptor, Path(path).resolve().parent)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise KeyFileUnusable(f"it can't be read: {exc.strerror or type(exc).__name__}") from exc
    except ValueError as exc:  # a NUL byte in its name
        raise KeyFileUnusable("its name is not valid") from exc
    if len(raw) > LARGEST:
        raise KeyFileUnusable(f"it is larger than {LARGEST} bytes")
    return raw


def _read(descriptor: int, directory: Path) -> bytes:
    """Of the file that was opened, whatever has its name by now."""
    objection = distrust(os.fstat(descriptor), directory.stat(), os.geteuid())
    if objection:
        raise KeyFileUnusable(objection)
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(LARGEST + 1)


def distrust(file: os.stat_result, directory: os.stat_result, uid: int) -> str:
    """Why a file must not be believed; empty when it may. Pure.

    Args:
        file: the opened file's.
        directory: of the directory that it lies in.
        uid: of this process.
    """
    if not stat.S_ISREG(file.st_mode):
        return "it is not a regular file"
    if file.st_uid not in (0, uid):
        return "it belongs to another user"
    if file.st_mode & 0o022:
        return "others can write it: chmod go-w"
    # Without the sticky bit, a user who can write a directory can put an earlier file in the place of this one.
    if directory.st_mode & 0o022 and not directory.st_mode & stat.S_ISVTX:
        return "others can write its directory: chmod go-w"
    return ""


def parse(raw: bytes) -> tuple[ApiKey, ...]:
    """The entries of a file. Pure.

    Args:
        raw: its bytes.

    Raises:
        KeyFileUnusable: names each invalid line by its number, never by its text.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise KeyFileUnusable("it is not UTF-8") from exc
    # A file that is written in place is seen half-written: an empty one would revoke everything, half a line an expiry.
    if not text.endswith("\n"):
        raise KeyFileUnusable("it does not end with a line feed: it is not written completely")
    found: list[ApiKey] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            entry = _entry(line)
        except ValueError as exc:
            problems.append(f"line {number}: {exc}")
        else:
            found += [entry] if entry else []
    problems += _repeated(found)
    if problems:
        more = [f"{len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
        raise KeyFileUnusable("; ".join([*problems[:_MAX_PROBLEMS], *more]))
    return tuple(found)


def _entry(line: str) -> ApiKey | None:
    """The entry of a line; None for an empty line and for a comment."""
    if _CONTROL.search(line):
        raise ValueError("there must be no control characters")
    line = line.strip()
    return None if not line or line.startswith("#") else api_keys.parse(line)


def _repeated(entries: Sequence[ApiKey]) -> list[str]:
    ids = collections.Counter(entry.id for entry in entries)
    digests = collections.Counter(entry.digest for entry in entries)
    return [
        *(
            f"the id {name} has {count} entries, {SECRETS} are allowed"
            for name, count in ids.items()
            if count > SECRETS
        ),
        *(f"the HMAC {text[:12]}… is there {count} times" for text, count in digests.items() if count > 1),
    ]


# --- writing -------------------------------------------------------------------------------------
@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Keep other writers out for the block. The lock file stays: removing it would let two writers hold two locks.

    Raises:
        KeyFileBusy: another one writes for longer than `PATIENCE` seconds.
        OSError: there is no such directory, or it can't be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(f"{os.path.realpath(path)}.lock", flags, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise KeyFileBusy
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lines(path: str) -> list[str]:
    """The lines of the file, comments included, to be changed and given to `write`; the header where there is no file.

    Raises:
        KeyFileUnusable: it must be corrected first.
    """
    if not Path(path).exists():
        return [HEADER]
    raw = read(path)
    parse(raw)
    return raw.decode().split("\n")[:-1]


def entry_of(line: str) -> ApiKey | None:
    """The entry of a line of `lines`; None for an empty line and for a comment."""
    return _entry(line)


def write(path: str, text: Iterable[str]) -> None:
    """Replace the file: a reader sees the old one or the new one, whole. Call it while `locked`.

    A new file has mode 0600. An existing one keeps its owner, its group and the group's right to read: without them the
    gateway's user would go on with what it read before.

    Args:
        path: of the file; a symbolic link stays, its target is replaced.
        text: the lines.

    Raises:
        KeyFileUnusable: the gateway would refuse the result; the file is as before.
        OSError: it can't be written; the file is as before.
    """
    raw = "".join(f"{line}\n" for line in text).encode()
    if len(raw) > LARGEST:
        raise KeyFileUnusable(f"it would be larger than {LARGEST} bytes")
    parse(raw)
    target = Path(path).resolve()
    descriptor, fresh = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # mode 0600
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123
            _as_before(descriptor, target)
            file.write(raw)
            file.flush()
            os.fsync(descriptor)
        Path(fresh).replace(target)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _as_before(descriptor: int, target: Path) -> None:
    if not target.exists():
        return
    old = target.stat()
    os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, 0o600 | (old.st_mode & 0o040))


def _sync(directory: Path) -> None:
    """The rename is on the disk: after a power cut a revoked API key stays revoked."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
