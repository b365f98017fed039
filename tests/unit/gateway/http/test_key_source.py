"""API keys that change while the gateway runs: the door never opens by mistake."""

import dataclasses
import os
import time

import pytest
import structlog.testing

from dispatch.config import api_keys, key_file
from dispatch.errors import StoreUnavailable
from dispatch.gateway.admission.key_watch import KeyWatch
from dispatch.gateway.admission.readiness import key_checks
from dispatch.gateway.http import auth, key_source
from dispatch.gateway.http.key_source import KeySource, SteadyClock
from dispatch.telemetry import metrics
from support.cases import each
from support.gateway_fakes import World, problem, record

PEPPER = "pepper"


def made(name="shop", scopes="tasks:read", expires=""):
    """An API key, and its line."""
    text = api_keys.token(name, api_keys.new_secret())
    line = f"{name}:{api_keys.digest(PEPPER, text)}:{scopes}"
    return text, f"{line} expires={expires}" if expires else line


class Door:
    """A gateway with a file of API keys."""

    def __init__(self, path, *lines, clock=None):
        self.path = path
        self.write(*lines)
        self.source = KeySource((), str(path), clock)
        self.world = World(options={"api_keys_file": str(path), "api_key_pepper": PEPPER}, keys=self.source)
        self.client = self.world.client()

    def write(self, *lines):
        if lines:
            key_file.write(str(self.path), lines)

    def status(self, key, path="/v1/tasks"):
        self.source.refresh()
        return self.client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys"


def test_a_revoked_key_is_refused_and_a_new_one_let_in_without_a_restart(path):
    (old, old_line), (new, new_line) = made(), made()
    door = Door(path, old_line)
    seen = [(door.status(old), door.status(new))]
    for lines in ([old_line, new_line], [new_line], [key_file.HEADER]):
        door.write(*lines)
        seen.append((door.status(old), door.status(new)))

    assert seen == [(200, 401), (200, 200), (401, 200), (401, 401)]


@each(
    ("scopes", "status"),
    [("tasks:read", 200), ("tasks:read+tasks:write", 200), ("tasks:write", 401), ("", 401)],
)
def test_a_request_that_waits_is_refused_when_its_key_is_revoked_or_loses_the_scope(scopes, status, tmp_path_factory):
    key, line = made()
    door = Door(tmp_path_factory.mktemp("door") / "keys", line)
    one = record(principal="shop")
    door.world.tasks.held[one.task_id] = one

    def change():
        door.write(line.replace(":tasks:read", f":{scopes}") if scopes else key_file.HEADER)
        door.source.refresh()

    door.world.tasks.on_wait = change
    answer = door.client.get(f"/v1/tasks/{one.task_id}", headers={"Authorization": f"Bearer {key}", "Prefer": "wait=9"})

    assert answer.status_code == status


def test_a_stream_ends_with_its_key_before_it_shows_what_happened_since(path):
    key, line = made()
    door = Door(path, line)
    one = record(principal="shop")
    tasks = door.world.tasks
    tasks.held[one.task_id] = one

    def change():
        tasks.held[one.task_id] = dataclasses.replace(one, revision=one.revision + 1)
        tasks.hops = lambda _: [{"seq": seq, "at": "", "kind": "progress"} for seq in (1, 2)]
        door.write(key_file.HEADER)
        door.source.refresh()

    tasks.on_wait = change
    stream = door.client.get(
        f"/v1/tasks/{one.task_id}/events", headers={"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    )

    assert stream.text == "retry: 3000\n\n"


def test_a_change_is_seen_that_no_time_size_or_inode_shows(path):
    (old, old_line), (new, new_line) = made(), made()
    door = Door(path, old_line)
    before = path.stat()
    with path.open("r+") as file:
        file.write(new_line)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (door.status(old), door.status(new)) == (401, 200)


def test_the_swap_of_a_mounted_secret_is_seen(tmp_path):
    (old, old_line), (new, new_line) = made(), made()
    for name, line in (("..1", old_line), ("..2", new_line)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{line}\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    door = Door(tmp_path / "keys")
    before = (door.status(old), door.status(new))
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    assert [before, (door.status(old), door.status(new))] == [(200, 401), (401, 200)]


@each(
    "spoil",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text("hunter2\n"),
        lambda path: path.write_text("# cut o"),
        lambda path: path.write_bytes(b"#\x00\n"),
        lambda path: path.write_bytes(b"#" * (key_file.LARGEST + 2)),
        lambda path: path.unlink(),
        lambda path: path.chmod(0o666),
        lambda path: os.chown(path, 12_345, -1) if os.geteuid() == 0 else path.chmod(0o660),
        lambda path: path.parent.chmod(0o777),
        lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    ],
    ids=["empty", "invalid", "half a line", "NUL", "huge", "gone", "writable", "foreign", "directory", "a device"],
)
def test_a_broken_file_keeps_what_was_read_before_and_is_reported(spoil, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    key, line = made()
    door = Door(path, line)
    with structlog.testing.capture_logs() as logged:
        spoil(path)
        seen = [door.status(key), door.status(made()[0]), door.status(key)]
    checks = {name: check() for name, check in key_checks(door.source).items()}

    assert seen == [200, 401, 200]
    assert [(each["event"], each["kept"]) for each in logged if each["event"] != "request"] == [
        ("API keys file can't be used", 1)
    ]
    assert "hunter2" not in str(logged) + str(checks)
    assert checks["keys"] is None
    assert checks["keysFile"]
    assert metrics.registry().get_sample_value("robot_api_keys_file_failing") == 1

    path.parent.chmod(0o700)
    door.write(line) if not path.is_symlink() and not path.exists() else _mend(path, line)
    assert (door.status(key), door.source.failure) == (200, "")
    assert metrics.registry().get_sample_value("robot_api_keys_file_failing") == 0


def _mend(path, line):
    path.unlink()
    key_file.write(str(path), [line])


def test_a_file_that_was_never_readable_opens_no_door(path):
    key, line = made()
    door = Door(path)
    refused = door.client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"})
    missing = door.client.get("/v1/tasks")
    checks = key_checks(door.source)
    door.world.checks |= checks

    problem(refused, 503, "keys-unavailable")
    problem(missing, 401, "unauthenticated")
    assert "No such file" in problem(door.world.client().get("/readyz"), 503, "keys-unavailable")["detail"]

    door.write(line)
    assert (door.status(key), door.world.client().get("/readyz").status_code) == (200, 200)


def test_a_file_without_entries_admits_no_client_not_even_this_machine(path):
    door = Door(path, key_file.HEADER)

    problem(door.client.get("/v1/tasks"), 401, "unauthenticated")
    assert door.client.get("/openapi.json").json["paths"]["/v1/tasks"]["get"]["security"] == [{"apiKey": []}]


def test_the_settings_keys_stay_beside_the_files(path):
    (first, setting), (second, line) = made("shop"), made("bank")
    key_file.write(str(path), [line])
    options = {"api_keys": (setting,), "api_keys_file": str(path), "api_key_pepper": PEPPER}
    client = World(options=options).client()

    for key in (first, second):
        assert client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_a_broken_file_is_shown_and_does_not_take_the_gateway_away(path):
    door = Door(path, made()[1])
    path.write_text("x\n")
    door.source.refresh()
    door.world.checks |= key_checks(door.source)
    answer = door.world.client().get("/readyz")

    assert answer.status_code == 200
    assert tuple(answer.json["checks"][name]["ok"] for name in ("keys", "keysFile")) == (True, False)
    assert "line 1" in answer.json["checks"]["keysFile"]["detail"]


def test_a_file_that_is_not_looked_at_any_more_is_reported(path, monkeypatch):
    door = Door(path, made()[1])
    monkeypatch.setattr(key_source, "STALE", -1.0)

    assert "not looked at" in door.source.failure


def test_a_key_lapses_and_no_clock_brings_it_back(path):
    at = 1_801_353_600.0
    key, line = made(expires="2027-01-31T00:00:00Z")
    wall, elapsed = [at - 10], [0.0]
    door = Door(path, line, clock=SteadyClock(lambda: wall[0], lambda: elapsed[0]))
    before = _refused(auth.EXPIRED)
    seen = [door.status(key)]
    elapsed[0] += 10
    wall[0] = at - 86_400  # the clock was turned back
    seen.append(door.status(key))
    wall[0] = at
    seen.append(door.status(key))

    assert seen == [200, 401, 401]
    assert before + 2 == _refused(auth.EXPIRED)
    answer = door.client.get("/v1/tasks", headers={"Authorization": f"Bearer {key}"})
    assert "expired" in problem(answer, 401, "unauthenticated")["detail"]


def test_every_token_costs_one_hmac_and_one_comparison(path, monkeypatch):
    right, line = made("shop")
    _, second = made("shop")
    client = Door(path, line, second).client
    calls = []
    digest, compare = api_keys.digest, auth.hmac.compare_digest
    monkeypatch.setattr(auth.api_keys, "digest", lambda *words: calls.append("hmac") or digest(*words))
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda *words: calls.append("compare") or compare(*words))
    tokens = [right, f"rk_shop_{'x' * 43}", f"rk_absent_{'x' * 43}", "x", f"rk_shop_{'x' * 43} "]
    costs = []
    for token in tokens:
        client.get("/v1/tasks", headers={"Authorization": f"Bearer {token}"})
        costs.append(tuple(calls))
        calls.clear()

    assert [("hmac", "compare")] * len(tokens) == costs


def test_the_hmac_of_one_id_under_another_does_not_authenticate(path):
    key, line = made("shop")
    door = Door(path, line.replace("shop:", "bank:", 1))

    assert door.status(key) == 401


class Recorded:
    """Where last uses are written."""

    def __init__(self):
        self.seen = []
        self.failure = None

    def record(self, seen):
        self.seen.append(dict(seen))
        if self.failure:
            raise self.failure


def test_last_uses_are_written_once_a_minute_and_redis_may_be_away(path):
    now = [1_000_000.0]
    key, line = made()
    door, usage = Door(path, line, clock=lambda: now[0]), Recorded()
    watch = KeyWatch(door.source, usage)
    watch.step()
    for seconds in (0, 1, 58, 1, 0):
        now[0] += seconds
        usage.failure = StoreUnavailable() if seconds == 58 else None
        door.status(key)
        watch.step()
    fingerprint = api_keys.digest(PEPPER, key)[:12]

    assert [{fingerprint: 1_000_000.0}, {fingerprint: 1_000_060.0}] == usage.seen


def test_the_watch_sees_a_change_within_two_seconds(path):
    key, line = made()
    door = Door(path, line)
    watch = KeyWatch(door.source, Recorded())
    watch.start()
    began = time.monotonic()
    try:
        door.write(key_file.HEADER)
        while door.source.find(api_keys.digest(PEPPER, key)) and time.monotonic() - began < 5:
            watch.pause(0.01)
    finally:
        watch.stop(2)

    assert time.monotonic() - began < 2


def _refused(reason):
    return metrics.registry().get_sample_value("robot_http_unauthenticated_total", {"reason": reason}) or 0.0
