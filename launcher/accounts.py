"""Which user a server runs as: its own where root starts it, and where that user can reach its files."""

from __future__ import annotations

import dataclasses
import os
import pwd
import stat
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Account:
    """A user that a server runs as."""

    name: str
    uid: int
    gid: int


def choose(user: str, directory: Path) -> Account | None:
    """The user a server should run as.

    Args:
        user: the server's own user, made by its package.
        directory: what that user must be able to reach; it need not exist yet.

    Returns:
        The account, or None to stay the caller: who is not root, or has no such user, or whose
        directory is closed to it (a checkout below ``/root``).
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    account = Account(user, entry.pw_uid, entry.pw_gid)
    return account if all(_passable(parent, account) for parent in directory.absolute().parents) else None


def hand_over(directory: Path, account: Account | None) -> None:
    """Give a server's files to its user; nobody else may look into them.

    Args:
        directory: the server's own directory.
        account: its user; None changes no owner.
    """
    directory.chmod(0o700)
    if account is None:
        return
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != account.uid:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _passable(directory: Path, account: Account) -> bool:
    if not directory.exists():
        return True  # it will be made by us
    found = directory.stat()
    if found.st_uid == account.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
