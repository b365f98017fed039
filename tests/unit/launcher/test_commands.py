"""What the launcher starts, and what it prints."""

import json
import stat
import time

import pytest

from dispatch.config import settings as configuration
from launcher import applications, health, plan
from launcher.__main__ import main
from launcher.control import Stack
from launcher.layout import ALL, STOP_ORDER
from launcher.rundir import RunDir
from launcher.status import as_json, report
from support.cases import each


@pytest.fixture
def run(tmp_path):
    return RunDir.at(tmp_path / "run")


def test_the_worker_autoscales_within_the_settings_and_stops_softly(run):
    settings = configuration.load({}, concurrency_min=3, concurrency_max=5, soft_shutdown=7)
    spec = applications.worker(settings, {}, run)

    assert "--autoscale=5,3" in spec.command
    assert spec.environ["REMAP_SIGTERM"] == "SIGQUIT"
    assert spec.grace == 12


def test_the_worker_has_threads_where_they_are_chosen(run):
    spec = applications.worker(configuration.load({}, worker_pool="threads", worker_threads=12), {}, run)

    assert "--pool=threads" in spec.command
    assert not any(word.startswith("--autoscale") for word in spec.command)
    assert spec.address == "12 threads"


def test_flower_keeps_what_it_saw_where_only_its_user_may_write(run):
    spec = applications.flower({}, "127.0.0.1", 2, run)

    assert {"--persistent=true", f"--db={run.flower}"} <= set(spec.command)
    assert stat.S_IMODE(run.flower.parent.stat().st_mode) == 0o700


def test_the_status_of_a_stack_is_for_programs_too(run):
    (text,), code = as_json(Stack(run, lambda _: None))

    assert (code, json.loads(text)) == (3, {"state": "stopped", "processes": [], "notes": [], "env": str(run.env)})


def test_no_command_line_carries_a_secret(run):
    settings = configuration.load({}, robot_client_secret="hidden", flower_basic_auth="u:hidden")
    specs = [
        applications.simulator(settings, {}, 1),
        applications.flower({}, "127.0.0.1", 2, run),
        applications.worker(settings, {}, run),
    ]

    assert not any("hidden" in part for spec in specs for part in spec.command)


@each(
    ("environ", "allowed"),
    [
        ({}, ("127.0.0.1:8090",)),
        ({"DISPATCH_HTTP_ALLOWED_HOSTS": "api.example:443"}, ("api.example:443",)),
        ({"DISPATCH_HTTP_ALLOWED_HOSTS": ""}, ()),
        ({"DISPATCH_ROBOT_API_URL": "http://vendor.example"}, ()),
    ],
)
def test_http_requests_may_go_to_the_simulator_unless_the_operator_has_a_list(environ, allowed, run):
    class Given:
        def claim(self, _name, _requested):
            return 8090

    planner = plan._Planner(run, Given(), environ, configuration.load(environ))
    for simulator in planner._simulator():
        assert configuration.load(planner._base).robot_api_url == simulator.address

    assert configuration.load(planner._base).http_allowed_hosts == allowed


def test_an_address_that_means_every_interface_is_shown_as_loopback():
    assert applications.base_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert applications.base_url("::", 80) == "http://[::1]:80"
    assert applications.base_url("10.0.0.1", 80) == "http://10.0.0.1:80"


def test_every_process_has_its_place_in_the_stopping_order():
    assert sorted(name for group in STOP_ORDER for name in group) == sorted(ALL)


def test_passwords_are_not_shown():
    shown = plan._redacted("amqp://me:secret@a:1/v;amqp://me:se:cret@b:2/v")

    assert shown == "amqp://me:…@a:1/v;amqp://me:…@b:2/v"


def test_status_shows_what_died_and_the_last_lines_of_its_log(run, monkeypatch):
    stack = Stack(run)
    run.log("redis").write_text("one\nout of disk\n")
    process = {
        "name": "redis", "state": "restarting", "pid": None, "since": time.time() - 75, "restarts": 2, "address": "127.0.0.1:1",
        "reason": "", "ending": "was terminated by SIGKILL", "log": str(run.log("redis")),
    }  # fmt: skip
    monkeypatch.setattr(stack, "supervised", lambda: True)
    monkeypatch.setattr(stack, "state", lambda: {"supervisor": 7, "notes": ["a note"], "processes": [process]})
    lines, code = report(stack)

    assert code == 1
    assert lines[1].split() == ["redis", "restarting", "-", "1m15s", "2", "127.0.0.1:1"]
    assert "redis was restarted 2 times; the process last was terminated by SIGKILL" in lines[3]
    assert lines[4:7] == ["  | one", "  | out of disk", "a note"]


@each(
    ("own", "looked_at", "code", "last"),
    [
        ({}, {"gateway", "rabbitmq", "redis"}, 1, "Redis at h:1/0: connection refused"),  # a server of others
        ({"DISPATCH_REDIS_URL": "redis://h:1/0"}, {"gateway", "rabbitmq"}, 0, "supervisor pid 7"),  # was not wanted
    ],
)
def test_status_asks_what_was_started_and_servers_of_others(own, looked_at, code, last, run):
    def troubles(_values, names):
        assert names - {"worker"} == looked_at
        return {name: "Redis at h:1/0: connection refused" for name in names if name == "redis"}

    stack = Stack(run)
    run.own.write_text(json.dumps(own))
    ready = {"state": "ready", "pid": 1, "since": time.time(), "restarts": 0, "address": "h", "reason": ""}
    state = {"supervisor": 7, "notes": [], "processes": [{**ready, "name": name} for name in ("gateway", "worker")]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "supervised", lambda: True)
        patch.setattr(stack, "state", lambda: state)
        patch.setattr(health, "troubles", troubles)
        lines, found = report(stack)

    assert (found, any(line.startswith(last) for line in lines)) == (code, True)


def test_status_has_the_reason_of_a_process_that_runs_and_can_not_be_used(run, monkeypatch):
    stack = Stack(run)
    process = {
        "name": "gateway",
        "state": "ready",
        "pid": 1,
        "since": time.time(),
        "restarts": 0,
        "address": "h",
        "reason": "",
    }
    monkeypatch.setattr(stack, "supervised", lambda: True)
    monkeypatch.setattr(stack, "state", lambda: {"supervisor": 7, "notes": [], "processes": [process]})
    monkeypatch.setattr(health, "troubles", lambda *_: {"gateway": "http://h/readyz: Redis: its memory is full"})
    lines, code = report(stack)

    assert code == 1
    assert lines[1].split()[:3] == ["gateway", "not", "ready"]
    assert "gateway is not ready: http://h/readyz: Redis: its memory is full" in lines


@pytest.mark.parametrize("verb", ["up", "down", "status", "restart"])
def test_an_unknown_setting_is_refused_with_the_nearest_name(verb, monkeypatch, capsys):
    monkeypatch.setenv("DISPATCH_RUN_DIRR", "x")

    assert main([verb]) == 1
    assert capsys.readouterr().err == "DISPATCH_RUN_DIRR: no such setting; did you mean DISPATCH_RUN_DIR?\n"


def test_an_unknown_process_is_refused_with_the_ones_there_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DISPATCH_RUN_DIR", str(tmp_path))

    assert main(["up", "--only", "postgres"]) == 1
    assert capsys.readouterr().err.startswith("no such process: postgres; there are all, servers, apps, epmd")


def test_nothing_running_is_status_three(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DISPATCH_RUN_DIR", str(tmp_path))

    assert main(["status"]) == 3
    assert capsys.readouterr().out == f"nothing is running in {tmp_path}\n"
