"""The packages as a user has them: built, installed into an environment of their own, run in a directory without a checkout."""

import dataclasses
import email
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from support.cases import each
from support.stack import ROOT, Stack

#: What the wheel has beside modules, an example each.
DATA = (
    "dispatch/store/lua/task/accept.lua", "dispatch/gateway/templates/home.html", "dispatch/gateway/static/page.css",
    "dispatch/gateway/static/swagger-ui/swagger-ui.css", "dispatch/py.typed", "launcher/setup-servers.sh", "flowerconfig.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The directory with both wheels and both sdists."""
    out = tmp_path_factory.mktemp("dist")
    command(ROOT / "scripts" / "dist.sh", out, cwd=ROOT, environ={"PYTHON": sys.executable, **os.environ})
    return out


def command(*words, cwd, environ, expect=0):
    """The output of a command."""
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout
    return done.stdout


@dataclasses.dataclass(frozen=True)
class Installed:
    """An environment with nothing of this checkout in it, and an empty directory."""

    directory: Path
    scripts: Path
    environ: dict[str, str]

    def run(self, *words, expect=0, **environ):
        """A command of the environment, in the empty directory."""
        program, *rest = words
        return command(
            self.scripts / program, *rest, cwd=self.directory, environ={**self.environ, **environ}, expect=expect
        )


def install(base, *wheels):
    """Wheels into an environment of their own; what they depend on is that of this checkout's environment."""
    venv.create(base / "env", symlinks=True)
    scripts = base / "env" / "bin"
    uv = ("pip", "install", "--quiet", "--offline", "--no-deps", "--python", scripts / "python")
    command(ROOT / "scripts" / "uv.sh", *uv, *wheels, cwd=ROOT, environ=dict(os.environ))
    # A line of a .pth file adds a directory, not what its own .pth files name: the checkout is not there.
    (own,) = (base / "env" / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    (base / "empty").mkdir()
    (base / "empty").chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DISPATCH_", "PYTHON"))}
    path = f"{scripts}:{environ['PATH']}"
    state = {"XDG_STATE_HOME": str(base / "state"), "HOME": str(base / "home"), "PATH": path}
    return Installed(base / "empty", scripts, {**environ, **state, "DISPATCH_HTTP_PORT": "0"})


@pytest.fixture
def base():
    """A directory which the servers' own users can pass through."""
    with tempfile.TemporaryDirectory(prefix="robot-dispatch-installed-") as made:
        Path(made).chmod(0o755)
        yield Path(made).resolve()


def test_a_wheel_has_its_data_and_two_builds_are_the_same(packages, tmp_path):
    (wheel,) = packages.glob("robot_dispatch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    command(ROOT / "scripts" / "dist.sh", tmp_path, cwd=ROOT, environ={"PYTHON": sys.executable, **os.environ})

    assert set(DATA) <= names
    assert not {name for name in names if name.startswith(("tests/", "tools/", "bench/", "robot_dispatch_client/"))}
    assert (tmp_path / "SHA256SUMS.packages").read_text() == (packages / "SHA256SUMS.packages").read_text()
    assert len(list(packages.iterdir())) == 5


@pytest.mark.timeout(300)
def test_an_installed_package_starts_the_demo_stack_does_a_task_and_leaves_nothing(packages, base):
    here = install(base, *packages.glob("*.whl"))
    run_dir = base / "state" / "robot-dispatch"
    stack = Stack(run_dir, {**here.environ, "DISPATCH_RUN_DIR": str(run_dir)})
    try:
        before = here.run("dispatch", "status", expect=3)
        started = here.run("dispatch", "up", "--only", "servers,worker,gateway", DISPATCH_LADDER="1m=1,5m=2,30m=3")
        script = "from robot_dispatch_client import Client as C; c = C(); print(c.wait(c.submit('echo', {'message': 'hi'}), 60).state)"
        done = here.run(
            "python", "-c", script, ROBOT_DISPATCH_URL=stack.env["DISPATCH_HTTP_URL"], ROBOT_DISPATCH_API_KEY=""
        )
        shown = json.loads(here.run("dispatch", "status", "--json"))
        counted = here.run("python", "-m", "celery", "-A", "celery_app", "tasks", "stats", "--json")
        verified = here.run("python", "-m", "celery", "-A", "celery_app", "topology", "verify")
        stopped = here.run("dispatch", "down")

        assert f"nothing is running in {run_dir}" in before
        assert "gateway    ready" in started
        assert done == "SUCCEEDED\n"
        assert {process["name"] for process in shown["processes"]} == {"epmd", "rabbitmq", "redis", "worker", "gateway"}
        assert "echo" in counted
        assert "no drift" in verified.lower() or "as it should be" in verified.lower(), verified
        assert "worker     stopped" in stopped
        assert stack.processes() == []
        assert list(here.directory.iterdir()) == []
    finally:
        stack.destroy()


def test_the_client_installs_alone(packages, base, system):
    (wheel,) = packages.glob("robot_dispatch_client-*.whl")
    here = install(base, wheel)
    script = (
        "import importlib.util, sys\n"
        "from robot_dispatch_client import Client, __version__\n"
        "from robot_dispatch_client.testing import FakeDispatch\n"
        "assert [name for name in ('dispatch', 'tasks', 'launcher', 'app') if importlib.util.find_spec(name)] == []\n"
        "with Client() as client:\n"
        "    task = client.wait(client.submit('echo', {'message': 'alone'}), timeout=60)\n"
        "print(__version__, task.result['message'], sorted({'celery', 'flask', 'redis', 'kombu'} & sys.modules.keys()))\n"
    )
    found = here.run(
        "python", "-W", "error", "-c", script, ROBOT_DISPATCH_URL=system.stack.env["DISPATCH_HTTP_URL"],
        ROBOT_DISPATCH_API_KEY="",
    )  # fmt: skip

    assert found == "1.0.0 alone []\n"


def test_help_and_version_need_no_system_and_the_demo_names_the_client_that_it_needs(packages, base):
    (wheel,) = packages.glob("robot_dispatch-*.whl")
    here = install(base, wheel)
    listed = here.run("dispatch", "--help")
    up = here.run("dispatch", "up", "--help")
    version = here.run("dispatch", "--version")
    demo = here.run("dispatch", "demo", expect=1)

    assert [name for name in ("demo", "down", "keys", "restart", "status", "up") if f"\n  {name} " not in listed] == []
    assert up.startswith("usage: dispatch up ")
    assert version == "robot-dispatch, version 1.0.0\n"
    assert "pip install robot-dispatch-client" in demo


# --- where a newcomer may stumble -----------------------------------------------------------------
@pytest.fixture
def installed(packages, base):
    """Both packages, and the stack that they would start."""
    here = install(base, *packages.glob("*.whl"))
    run_dir = base / "state" / "robot-dispatch"
    stack = Stack(run_dir, {**here.environ, "DISPATCH_RUN_DIR": str(run_dir)})
    yield here, stack
    stack.destroy()


@pytest.mark.parametrize("tools", [("bash", "dirname", "id"), ()], ids=["no servers", "no shell either"])
def test_a_machine_without_servers_is_answered_with_what_to_install(installed, base, tools):
    here, stack = installed
    (base / "tools").mkdir()
    for name in tools:  # no apt-get among them
        (base / "tools" / name).symlink_to(shutil.which(name))
    outputs = [here.run("dispatch", verb, expect=1, PATH=str(base / "tools")) for verb in ("up", "demo")]

    assert {output.count("\n") for output in outputs} <= {1, 3}  # the demo has a heading
    for output in outputs:
        assert re.search(r"rabbitmq-server (and )?redis-server not found: install", output), output
        assert "sudo apt-get install rabbitmq-server redis-server" in output
        assert "DISPATCH_BROKER_URL, DISPATCH_MANAGEMENT_URL and DISPATCH_REDIS_URL" in output
    assert stack.processes() == []


def test_a_port_that_is_asked_for_and_taken_is_named(installed):
    here, stack = installed
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        output = here.run("dispatch", "up", expect=1, DISPATCH_HTTP_PORT=port)

    assert output == f"port {port} for gateway is taken on 127.0.0.1\n"
    assert stack.processes() == []


@each("kind", ["a directory of the kernel", "a file"])
def test_a_state_directory_that_cant_be_written_is_named_with_what_to_set(installed, base, kind):
    here, _ = installed
    state = base / "a-file" if kind == "a file" else Path("/sys/kernel")  # where root can't write either
    if kind == "a file":
        state.write_text("")
    for verb in ("up", "down", "status"):
        output = here.run("dispatch", verb, expect=1, XDG_STATE_HOME=str(state))

        assert output.startswith(f"{state}/robot-dispatch can't be used for the stack's data and logs: "), output
        assert output.endswith("another directory: DISPATCH_RUN_DIR\n")


@pytest.mark.timeout(480)
def test_the_demo_runs_twice_down_may_be_repeated_and_a_stack_with_long_waits_is_not_waited_for(installed):
    here, stack = installed
    nothing = here.run("dispatch", "down")
    first, second = here.run("dispatch", "demo"), here.run("dispatch", "demo")
    here.run("dispatch", "down")
    again = here.run("dispatch", "down")
    here.run("dispatch", "up", "--only", "servers,worker,gateway")
    slow = here.run("dispatch", "demo", expect=1)
    here.run("dispatch", "down")

    assert nothing == again == "nothing was running\n"
    assert "already running" not in first
    assert "already running: epmd, rabbitmq, redis, simulator, worker, gateway, flower" in second
    for output in (first, second):
        assert output.count("202 in") == 4
        assert "DEAD_LETTERED" in output
    assert "a task that fails waits 2160 s" in slow
    assert "dispatch down && dispatch demo" in slow
    assert "202 in" not in slow
    assert stack.processes() == []


def test_pip_refuses_a_python_that_is_too_old(packages):
    for wheel in packages.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
            metadata = email.message_from_bytes(archive.read(name))
        allowed = SpecifierSet(metadata["Requires-Python"])

        assert ("3.10.19" in allowed, "3.11.0" in allowed, "3.14.0" in allowed) == (False, True, True), wheel
