"""The user of a server process: the server's own when root starts it and that user can reach its files."""

from __future__ import annotations

import dataclasses
import os
import pwd
import stat
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Account:
    """The user of a server process."""

    name: str
    uid: int
    gid: int


def choose(user: str, directory: Path) -> Account | None:
    """The user a server should run as.

    Args:
        user: the server's own user, created by its package.
        directory: must be reachable for that user; it need not exist yet.

    Returns:
        The account, or None for the caller's: without root, without such a user, or when the directory is not
        reachable for it (a checkout below ``/root``).
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    account = Account(user, entry.pw_uid, entry.pw_gid)
    return account if all(_passable(parent, account) for parent in directory.absolute().parents) else None


def assign(directory: Path, account: Account | None) -> None:
    """Make a server's user the owner of its files, with access for the owner only.

    Args:
        directory: the server's own directory.
        account: its user; None leaves the owner unchanged.
    """
    directory.chmod(0o700)
    if account is None:
        return
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != account.uid:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _passable(directory: Path, account: Account) -> bool:
    if not directory.exists():
        return True  # the launcher will create it
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
