"""The supervisor over stub processes: order, restarts, requests, what it leaves behind."""

import itertools
import json
import os
import signal
import socket
import stat
import sys
import time
from contextlib import closing

import pytest

from launcher import envfile, procfs
from launcher.errors import LaunchError
from launcher.plan import Plan
from launcher.ports import Ports
from launcher.processes import START, Spec
from launcher.rundir import RunDir
from launcher.supervisor import Supervisor
from support.waiting import eventually

SLEEP = "import time; print('here', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('here', flush=True); import time; time.sleep(600)"
PARENT = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(600)"


@pytest.fixture
def run(tmp_path):
    return RunDir.at(tmp_path / "run")


@pytest.fixture
def supervise(run):
    """Build supervisors of stubs; everything is stopped in the end."""
    made = []

    def build(*specs, wanted=None):
        plan = Plan(specs, {"DISPATCH_REDIS_URL": "redis://somewhere"}, {}, ())
        supervisor = Supervisor(run, plan, wanted or [spec.name for spec in specs])
        made.append(supervisor)
        return supervisor

    yield build
    for supervisor in made:
        supervisor.stop()
    assert procfs.owned(run.path) == []


@pytest.fixture
def spec(run):
    """Specs of stubs, which are ready once they have logged "here"."""

    def build(name, code=SLEEP, **changes):
        ready = lambda _: None if run.log(name).exists() and "here" in run.log(name).read_text() else "silent"  # noqa: E731
        defaults = {"ready": ready, "grace": 5.0, "pid_key": f"{name.upper()}_PID"}
        return Spec(
            name=name,
            command=(sys.executable, "-c", code, START),
            environ={**os.environ, procfs.MARKER: str(run.path)},
            directory=run.path,
            **{**defaults, **changes},
        )

    return build


def step(supervisor):
    if supervisor.step():
        supervisor.publish()


def states(run):
    return {process["name"]: process["state"] for process in json.loads(run.state.read_text())["processes"]}


def reach(supervisor, run, **wanted):
    """Step until these processes are in these states."""
    supervisor.publish()

    def reached():
        step(supervisor)
        return wanted.items() <= states(run).items()

    eventually(reached, 10, lambda: str(states(run)))


def test_a_process_starts_only_when_what_it_needs_is_ready(supervise, spec, run):
    slow = spec("redis", ready=lambda _: None if (run.path / "go").exists() else "loading")
    supervisor = supervise(slow, spec("worker", after=("redis",)))
    reach(supervisor, run, redis="starting", worker="waiting")
    (run.path / "go").touch()

    reach(supervisor, run, redis="ready", worker="ready")


def test_a_dead_process_is_started_again_and_its_new_pid_is_in_the_env_file(supervise, spec, run):
    supervisor = supervise(spec("redis"))
    reach(supervisor, run, redis="ready")
    old = envfile.read(run.env)
    os.kill(int(old["REDIS_PID"]), signal.SIGKILL)
    reach(supervisor, run, redis="restarting")

    assert "REDIS_PID" not in envfile.read(run.env)

    reach(supervisor, run, redis="ready")
    new = envfile.read(run.env)

    assert new["REDIS_PID"] != old["REDIS_PID"]
    assert {**new, "REDIS_PID": ""} == {**old, "REDIS_PID": ""}
    assert stat.S_IMODE(run.env.stat().st_mode) == 0o600
    (process,) = json.loads(run.state.read_text())["processes"]
    assert process["restarts"] == 1
    assert process["ending"] == "was terminated by SIGKILL"


def test_each_death_doubles_the_wait_before_the_next_start(supervise, spec, run):
    supervisor = supervise(spec("worker", "print('no', flush=True); raise SystemExit(3)"))
    starts = []

    def died_four_times():
        step(supervisor)
        (process,) = json.loads(run.state.read_text())["processes"]
        if process["pid"] and process["pid"] not in [pid for pid, _ in starts]:
            starts.append((process["pid"], time.monotonic()))
        return process["restarts"] == 4

    supervisor.publish()
    eventually(died_four_times, 15)
    waits = [later - earlier for (_, earlier), (_, later) in itertools.pairwise(starts)]

    assert [wait >= least for wait, least in zip(waits, (0.25, 0.5, 1.0), strict=True)] == [True] * 3
    (process,) = json.loads(run.state.read_text())["processes"]
    assert process["ending"] == "exited with status 3"
    assert not process["wasReady"]


def test_what_a_killed_process_had_started_goes_with_it(supervise, spec, run):
    supervisor = supervise(spec("gateway", PARENT))
    supervisor.publish()

    def both():
        step(supervisor)
        return len(procfs.owned(run.path)) == 2

    eventually(both, 10)
    leader = int(envfile.read(run.env)["GATEWAY_PID"])
    orphan = next(pid for pid in procfs.owned(run.path) if pid != leader)
    os.kill(leader, signal.SIGKILL)

    def orphan_gone():
        step(supervisor)
        return procfs.started_at(orphan) is None

    eventually(orphan_gone, 10)


def test_stopping_goes_from_gateway_to_servers_and_kills_after_the_grace(supervise, spec, run):
    supervisor = supervise(
        spec("redis"), spec("worker", STUBBORN, grace=0.3), spec("gateway"), spec("flower", after=("missing",))
    )
    reach(supervisor, run, redis="ready", worker="ready", gateway="ready", flower="waiting")
    supervisor.stop()
    processes = json.loads(run.state.read_text())["processes"]
    ended = sorted((process for process in processes if process["ending"]), key=lambda each: each["since"])

    assert [(each["name"], each["ending"]) for each in ended] == [
        ("gateway", "was terminated by SIGTERM"),
        ("worker", "was terminated by SIGKILL"),
        ("redis", "was terminated by SIGTERM"),
    ]
    assert set(states(run).values()) == {"stopped"}


def test_a_request_adds_processes_and_restarts_others(supervise, spec, run):
    supervisor = supervise(spec("redis"), spec("worker"), wanted=["redis"])
    reach(supervisor, run, redis="ready")
    old = envfile.read(run.env)["REDIS_PID"]

    assert "WORKER_PID" not in envfile.read(run.env)

    run.request.write_text(json.dumps({"id": "1", "start": ["redis", "worker"], "restart": ["redis"]}))
    supervisor._take_request()
    reach(supervisor, run, redis="ready", worker="ready")

    assert json.loads(run.state.read_text())["handled"] == "1"
    assert not run.request.exists()
    assert envfile.read(run.env)["REDIS_PID"] != old
    assert json.loads(run.state.read_text())["processes"][0]["restarts"] == 0


def test_a_log_is_kept_as_dot_one_when_its_process_is_started_anew(supervise, spec, run):
    run.log("redis").write_text("from last time")
    reach(supervise(spec("redis")), run, redis="ready")

    assert run.log("redis").with_name("redis.log.1").read_text() == "from last time"
    assert run.log("redis").read_text() == "here\n"


def test_each_start_has_a_text_of_its_own(supervise, spec, run):
    supervisor = supervise(
        spec("worker", "import sys; print('here', sys.argv[1], flush=True); import time; time.sleep(600)")
    )
    reach(supervisor, run, worker="ready")
    os.kill(int(envfile.read(run.env)["WORKER_PID"]), signal.SIGKILL)
    eventually(lambda: step(supervisor) or run.log("worker").read_text().count("here") == 2, 10)

    assert len(set(run.log("worker").read_text().split()) - {"here"}) == 2


def test_a_program_that_is_not_there_is_reported_not_raised(supervise, run):
    broken = Spec(
        name="redis",
        command=("/nonexistent",),
        environ={},
        directory=run.path,
        ready=lambda _: None,
        pid_key="REDIS_PID",
    )
    reach(supervise(broken), run, redis="restarting")

    (process,) = json.loads(run.state.read_text())["processes"]
    assert process["ending"].startswith("could not be started")


def test_ports_are_remembered_and_two_stacks_never_get_the_same(tmp_path):
    with closing(Ports(tmp_path / "one")) as one, closing(Ports(tmp_path / "two")) as two:
        port = one.claim("redis")
        with pytest.raises(LaunchError, match=f"port {port} for redis is taken"):
            two.claim("redis", port)
    with closing(Ports(tmp_path / "one")) as again:
        assert again.claim("redis") == port


def test_a_remembered_port_that_another_process_took_is_given_up(tmp_path):
    with closing(Ports(tmp_path / "one")) as one:
        port = one.claim("redis")
    with socket.create_server(("127.0.0.1", port)), closing(Ports(tmp_path / "one")) as again:
        assert again.claim("redis") != port
