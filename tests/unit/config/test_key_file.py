"""The file of API keys: what is refused, and how it is written."""

import os
import stat
import threading
from pathlib import Path

import pytest

from dispatch.config import api_keys, key_file
from dispatch.config.key_file import KeyFileBusy, KeyFileUnusable
from support.cases import each

HMAC = "a" * 64
LINE = f"shop:{HMAC}:tasks:read"


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(lines(LINE))
    path.chmod(0o600)
    return path


def test_entries_comments_and_empty_lines():
    found = key_file.parse(
        lines("# a comment", "", f"  {LINE}  ", f"bank:{'b' * 64}:tasks:write expires=2027-01-31T00:00:00+01:00")
    )

    assert [entry.id for entry in found] == ["shop", "bank"]
    assert [entry.expires and api_keys.written(entry.expires) for entry in found] == [None, "2027-01-30T23:00:00Z"]
    assert key_file.parse(lines(key_file.HEADER)) == ()


def test_an_entry_with_an_expiry_survives_the_file():
    (entry,) = key_file.parse(lines(f"{LINE} expires=2027-01-31T00:00:00Z"))

    assert entry == api_keys.parse(str(entry))
    assert (entry.expired(1_801_353_599), entry.expired(1_801_353_600)) == (False, True)


@each(
    ("raw", "reason"),
    [
        (b"", "line feed"),
        (LINE.encode(), "line feed"),
        (lines(LINE)[:-9], "line feed"),
        (lines("hunter2"), "line 1: the HMAC"),
        (lines("Hunter2"), "line 1: the id"),
        (lines("rk_shop_hunter2hunter2hunter2hunter2"), "line 1: the id"),
        (lines(LINE, "shop:hunter2:tasks:read"), "line 2: the HMAC"),
        (lines(f"shop:{HMAC}:tasks:hunter2"), "line 1: scopes"),
        (lines(f"shop:{HMAC}:"), "line 1: scopes"),
        (lines(f"{LINE} expire=2027-01-31T00:00:00Z"), "line 1: after the scopes"),
        (lines(f"{LINE} hunter2"), "line 1: after the scopes"),
        (lines(f"{LINE} expires=2027-01-31T00:00:00Z expires=2028-01-31T00:00:00Z"), "line 1: after the scopes"),
        (lines(f"{LINE} expires="), "line 1: a time"),
        (lines(f"{LINE} expires=2027-01-31"), "line 1: a time"),
        (lines(f"{LINE} expires=9999-12-31T23:59:59-12:00"), "line 1: a time"),
        (lines(f"{LINE}\x00"), "line 1: there must be no control characters"),
        (lines(LINE + "\r"), "line 1: there must be no control characters"),
        (lines(f"# \x1b[2J{LINE}"), "line 1: there must be no control characters"),
        (b"\xff\xfe\n", "UTF-8"),
        (lines(LINE, LINE), "the HMAC aaaaaaaaaaaa… is there 2 times"),
        (lines(LINE, f"bank:{HMAC}:tasks:read"), "the HMAC aaaaaaaaaaaa… is there 2 times"),
        (lines(*(f"shop:{digit * 64}:tasks:read" for digit in "abc")), "the id shop has 3 entries"),
        (lines(*("hunter2" for _ in range(99))), "89 more"),
    ],
)
def test_a_file_is_refused_as_a_whole_and_without_its_text(raw, reason):
    with pytest.raises(KeyFileUnusable) as caught:
        key_file.parse(raw)

    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 1_500


def owned(mode: int, uid: int = 1_000) -> os.stat_result:
    return os.stat_result((mode, 1, 1, 1, uid, uid, 10, 0, 0, 0))


@each(
    ("file", "directory", "reason"),
    [
        (owned(stat.S_IFREG | 0o600), owned(stat.S_IFDIR | 0o700), ""),
        (owned(stat.S_IFREG | 0o644), owned(stat.S_IFDIR | 0o755), ""),
        (owned(stat.S_IFREG | 0o440, uid=0), owned(stat.S_IFDIR | 0o1777, uid=0), ""),
        (owned(stat.S_IFREG | 0o600, uid=1_001), owned(stat.S_IFDIR | 0o700), "another user"),
        (owned(stat.S_IFREG | 0o620), owned(stat.S_IFDIR | 0o700), "others can write it"),
        (owned(stat.S_IFREG | 0o602), owned(stat.S_IFDIR | 0o700), "others can write it"),
        (owned(stat.S_IFREG | 0o600), owned(stat.S_IFDIR | 0o777), "others can write its directory"),
        (owned(stat.S_IFREG | 0o600), owned(stat.S_IFDIR | 0o770), "others can write its directory"),
        (owned(stat.S_IFIFO | 0o600), owned(stat.S_IFDIR | 0o700), "regular"),
        (owned(stat.S_IFCHR | 0o600, uid=0), owned(stat.S_IFDIR | 0o700), "regular"),
    ],
)
def test_a_file_is_trusted_as_sshd_trusts_authorized_keys(file, directory, reason):
    found = key_file.distrust(file, directory, 1_000)

    assert bool(reason) == bool(found)
    assert reason in found


def test_what_can_not_be_read_is_refused_at_once(file, tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * key_file.LARGEST + b"\n")
    wrong = {
        tmp_path / "absent": "No such file",
        tmp_path: "not a regular file",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "loop": "symbolic links",
        huge: "larger than",
        "a\0b": "its name",
        "/dev/zero": "not a regular file",
    }
    opened = len(list(Path("/proc/self/fd").iterdir()))
    for path, reason in wrong.items():
        with pytest.raises(KeyFileUnusable, match=reason):
            key_file.read(str(path))
    assert opened == len(list(Path("/proc/self/fd").iterdir()))

    file.chmod(0o622)
    with pytest.raises(KeyFileUnusable, match="others can write it"):
        key_file.read(str(file))


def test_a_link_is_followed_as_kubernetes_mounts_secrets(file, tmp_path):
    (tmp_path / "..data").symlink_to(tmp_path)
    (tmp_path / "mounted").symlink_to("..data/keys")

    assert lines(LINE) == key_file.read(str(tmp_path / "mounted"))

    key_file.write(str(tmp_path / "mounted"), [key_file.HEADER])

    assert (tmp_path / "mounted").is_symlink()
    assert file.read_bytes() == lines(key_file.HEADER)


def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_groups_right_to_read(file, tmp_path):
    umask = os.umask(0)
    try:
        key_file.write(str(tmp_path / "new"), [LINE])
        file.chmod(0o640)
        key_file.write(str(file), [LINE, "# more"])
    finally:
        os.umask(umask)

    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "keys")] == [0o600, 0o640]
    assert key_file.lines(str(file))[1:] == ["# more"]
    assert {"keys", "new"} == {path.name for path in tmp_path.iterdir()}


def test_what_the_gateway_would_refuse_is_not_written(file):
    with pytest.raises(KeyFileUnusable):
        key_file.write(str(file), [LINE, LINE])

    assert file.read_bytes() == lines(LINE)
    assert [file] == list(file.parent.iterdir())


def test_one_writer_at_a_time(file, monkeypatch):
    monkeypatch.setattr(key_file, "PATIENCE", 0.0)
    with key_file.locked(str(file)), pytest.raises(KeyFileBusy), key_file.locked(str(file)):
        pass
    monkeypatch.setattr(key_file, "PATIENCE", 10.0)
    key_file.write(str(file), [key_file.HEADER])

    def add(number: int) -> None:
        with key_file.locked(str(file)):
            key_file.write(str(file), [*key_file.lines(str(file)), f"shop-{number}:{number:064x}:tasks:read"])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {f"shop-{number}" for number in range(8)} == {entry.id for entry in key_file.parse(file.read_bytes())}
