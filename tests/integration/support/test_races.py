"""What the tests start they end, whatever happens in between; they signal no process but their own."""

import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import psutil
import pytest

from launcher import procfs
from launcher.ports import Ports
from support import redises, servers
from support import stack as stacks
from support.chaos import faults
from support.chaos.facts import Fault
from support.ports import free_port
from support.waiting import eventually
from support.worker import Worker

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]

#: A main process that forks a child whenever it is given time to.
FORKING = """
import os, time
while True:
    if not os.fork():
        time.sleep(60)
    time.sleep(0.02)
"""


@pytest.fixture
def started():
    """Start processes; whatever is left of their sessions is killed in the end."""
    made = []

    def start(command, **options):
        made.append(subprocess.Popen(command, start_new_session=True, **options))
        return made[-1]

    yield start
    for process in made:
        for pid in session(process):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def session(process):
    """The live processes of a process's session."""
    return [pid for pid in psutil.pids() if procfs.started_at(pid) is not None and _session_of(pid) == process.pid]


def _session_of(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


class SlowlyListed(Worker):
    """Between the list of its children and the kill there is time to fork."""

    def children(self):
        found = super().children()
        threading.Event().wait(0.3)
        return found


def test_a_killed_worker_leaves_no_child_that_was_forked_while_it_was_killed(started, tmp_path):
    worker = SlowlyListed(started([sys.executable, "-c", FORKING]), tmp_path / "log")
    eventually(worker.children, 10, "it forks")

    worker.kill()

    eventually(lambda: session(worker.process) == [], 5, lambda: f"{session(worker.process)} live on")
    assert worker.process.returncode == -signal.SIGKILL


def test_a_worker_that_is_dead_can_be_killed(started, tmp_path):
    worker = Worker(started(SLEEP), tmp_path / "log")
    worker.process.kill()

    worker.kill()

    assert worker.process.returncode == -signal.SIGKILL


def test_a_child_that_ends_while_it_is_looked_at_is_of_no_family(started, monkeypatch, tmp_path):
    main, child = started(SLEEP), started(SLEEP)
    ended = psutil.Process(child.pid)
    child.kill()
    child.wait()
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [ended])

    assert Worker(main, tmp_path / "log").family() == [main.pid]


def test_a_stack_whose_supervisors_pid_is_another_processs_by_now_spares_that(started):
    stack, stranger = stacks.make(), started(SLEEP)
    (stack.run_dir / "env").write_text(f"SUPERVISOR_PID={stranger.pid}\n")

    stack.destroy()

    assert stranger.poll() is None
    assert not stack.run_dir.exists()


def test_servers_thrown_away_take_a_process_along_that_was_started_meanwhile(started, monkeypatch, tmp_path):
    environ = {**os.environ, procfs.MARKER: str(tmp_path)}
    first = started(SLEEP, env=environ)
    late, send = [], procfs.send

    def send_late(pids, number):
        send(pids, number)
        if not late:
            late.append(started(SLEEP, env=environ))
            eventually(lambda: procfs.belongs(late[0].pid, tmp_path), 5, "it has its environment")

    eventually(lambda: procfs.belongs(first.pid, tmp_path), 5, "it has its environment")
    monkeypatch.setattr(procfs, "send", send_late)

    servers.throw_away(tmp_path)

    assert [first.wait(5), late[0].wait(5)] == [-signal.SIGKILL] * 2


def test_a_redis_that_is_gone_is_sent_no_signal(started, monkeypatch, tmp_path):
    sent = []
    server = redises.Server(0, SLEEP, tmp_path / "log", started(SLEEP))
    server.kill()
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))

    server.signal(signal.SIGCONT)
    never_started = redises.Server(0, SLEEP, tmp_path / "log")
    never_started.signal(signal.SIGCONT)
    monkeypatch.undo()

    assert sent == []


def test_a_stop_that_misses_a_child_lets_the_others_go_on(started):
    main, child = started(SLEEP), started(SLEEP)
    child.kill()
    child.wait()
    breaker = faults.Breaker.__new__(faults.Breaker)
    breaker._stopped = set()
    breaker._machine = types.SimpleNamespace(pid=lambda _: main.pid, children=lambda _: [child.pid])

    with pytest.raises(ProcessLookupError), breaker._stop(Fault(0.0, "stop", "gateway")):
        pass

    eventually(lambda: psutil.Process(main.pid).status() != psutil.STATUS_STOPPED, 5, "it goes on")
    assert breaker._stopped == set()


def test_a_free_port_is_given_once_and_held_against_others():
    ports = [free_port() for _ in range(50)]
    others = Ports(Path("/nonexistent"))

    assert len(set(ports)) == 50
    assert max(ports) < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert not any(others.hold(port, "127.0.0.1") for port in ports)
