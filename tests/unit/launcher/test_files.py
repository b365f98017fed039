import os
import stat

from launcher import accounts, envfile, files, procfs


def test_env_file_is_read_back_and_private(tmp_path):
    values = {"DISPATCH_BROKER_URL": "amqp://u:p=w@h:1/v", "WORKER_PID": "12"}
    envfile.write(tmp_path / "env", values)

    assert envfile.read(tmp_path / "env") == values
    assert (tmp_path / "env").read_text() == "DISPATCH_BROKER_URL=amqp://u:p=w@h:1/v\nWORKER_PID=12\n"
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / "env"]


def test_a_missing_env_file_is_empty(tmp_path):
    assert envfile.read(tmp_path / "env") == {}


def test_tail_gives_the_last_lines_and_survives_bytes_that_are_no_text(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"x" * 100_000 + b"\none\n\xff two\n")

    assert files.tail(log, 2) == ["one", "\ufffd two"]
    assert files.tail(tmp_path / "none") == []


def test_a_log_too_long_is_emptied_under_its_writers_hands(tmp_path):
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 10)
        files.rotate_in_place(log, limit=10)

        assert log.stat().st_size == 10

        writer.write(b"b")
        files.rotate_in_place(log, limit=10)
        writer.write(b"c")

    assert log.read_bytes() == b"c"
    assert (tmp_path / "log.1").read_bytes() == b"a" * 10 + b"b"


def test_an_account_that_is_not_root_starts_servers_as_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)

    assert accounts.choose("nobody", tmp_path) is None


def test_a_user_that_does_not_exist_or_cannot_reach_the_directory_is_not_chosen(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    assert accounts.choose("no-such-user", tmp_path) is None
    assert accounts.choose("nobody", closed / "redis") is None


def test_a_process_is_ours_by_the_marker_it_was_started_with(monkeypatch, tmp_path):
    monkeypatch.setenv(procfs.MARKER, str(tmp_path))  # too late to count: a process keeps what it was started with

    assert not procfs.belongs(os.getpid(), tmp_path)
    assert procfs.started_at(os.getpid()) == procfs.started_at(os.getpid())
    assert procfs.started_at(2**22 + 1) is None
    assert procfs.environ(2**22 + 1) == {}
