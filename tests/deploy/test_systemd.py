"""The systemd units: systemd takes them, their commands and settings are the code's, and a stop leaves time to finish."""

import configparser
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import httpx
import pytest

from dispatch.config import settings as configuration
from launcher import environments
from support import deploy
from support.cases import each
from support.ports import free_port
from support.waiting import eventually

SYSTEMD = deploy.DEPLOY / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.iterdir() if path.suffix in {".service", ".target"})
SERVICES = [name for name in UNITS if name.endswith(".service")]
RUNNING = [name for name in SERVICES if "topology" not in name]

HOME = "/opt/robot-dispatch"


class Unit:
    """A unit's sections; a key may be given several times."""

    def __init__(self, name):
        self.text = (SYSTEMD / name).read_text()
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str
        parser.read_string(self.text)
        self.sections = parser

    def __getitem__(self, key):
        return self.sections.get("Service", key)

    def every(self, key):
        return re.findall(rf"^{key}=(.*)$", self.text, re.MULTILINE)

    @property
    def command(self):
        """Its arguments as the process gets them: systemd's own escapes are gone."""
        return [
            each.replace("%%", "%").replace("$$", "$") for each in shlex.split(self["ExecStart"].replace("%i", "7"))
        ]


def environ(process):
    """What the example of an environment file has."""
    lines = (SYSTEMD / f"{process}.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))


def process_of(name):
    return re.sub(r"robot-dispatch-|@|\.service", "", name).replace("topology", "admin")


def test_systemd_has_no_objection_to_any_unit(tmp_path):
    where = tmp_path / "opt"
    (where / ".venv" / "bin").mkdir(parents=True)
    for command in ("celery", "gunicorn"):
        shutil.copy("/bin/true", where / ".venv" / "bin" / command)
    for name in UNITS:
        (tmp_path / name).write_text((SYSTEMD / name).read_text().replace(HOME, str(where)))

    units = [str(tmp_path / name.replace("@", "@1")) for name in UNITS]
    shutil.copy(tmp_path / "robot-dispatch-worker@.service", tmp_path / "robot-dispatch-worker@1.service")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )

    assert [line for line in done.stderr.splitlines() if "robot-dispatch" in line] == []
    assert done.returncode == 0, done.stderr


@each("name", SERVICES)
def test_a_service_is_confined(name):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(SYSTEMD / name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (exposure,) = re.findall(r"Overall exposure level for \S+ (\d+\.\d+)", done.stdout)

    assert float(exposure) < 2.0  # 9.6 without any of it


@each("name", SERVICES)
def test_a_service_runs_as_its_own_user_with_root_owned_settings(name):
    unit = Unit(name)
    process = process_of(name)

    assert (unit["User"], unit["Group"]) == ("robot", "robot")
    assert unit.every("EnvironmentFile")[:2] == [
        "/etc/robot-dispatch/common.env",
        f"/etc/robot-dispatch/{process}.env",
    ]
    assert (SYSTEMD / f"{process}.env.example").exists()


@each("name", SERVICES)
def test_a_service_starts_with_its_examples(name):
    configuration.load({**environ("common"), **environ(process_of(name))})


@each("process", ["gateway", "worker", "flower"])
def test_an_example_has_the_secrets_of_its_process_and_no_others(process):
    text = "".join((SYSTEMD / f"{each}.env.example").read_text() for each in ("common", process))
    given = {name.lower() for name in re.findall(r"^#?DISPATCH_(\w+)=", text, re.MULTILINE)}

    assert given <= set(configuration.Settings.model_fields)
    assert all(process in environments.OWNERS[name] for name in given & set(environments.OWNERS))


def test_each_process_connects_as_its_own_users():
    def users(process):
        return set(re.findall(r"(?:amqp|http)://(\w+):", (SYSTEMD / f"{process}.env.example").read_text()))

    assert users("gateway") == {"gateway", "monitor"}
    assert users("worker") == {"worker", "replay", "monitor"}
    assert users("flower") == {"control", "monitor"}


@each("name", RUNNING)
def test_a_stop_reaches_the_main_process_alone_and_leaves_time(name):
    unit = Unit(name)
    gunicorn = (deploy.ROOT / "dispatch" / "gateway" / "gunicorn_conf.py").read_text()
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)$", gunicorn, re.MULTILINE)
    soft = configuration.load(environ("worker")).soft_shutdown
    least = {"robot-dispatch-gateway.service": int(graceful) + 10, "robot-dispatch-worker@.service": soft + 20}

    assert unit["KillMode"] == "mixed"
    assert int(unit["TimeoutStopSec"]) >= least.get(name, 10)
    assert (unit["Restart"], unit["RestartPreventExitStatus"]) == ("always", "2")


def test_the_gateway_has_the_open_files_that_it_asks_for():
    connections = configuration.load({}).http_connections

    assert int(Unit("robot-dispatch-gateway.service")["LimitNOFILE"]) >= connections + 1_024


def test_workers_and_gateway_start_when_the_map_was_applied():
    for name in ("robot-dispatch-worker@.service", "robot-dispatch-gateway.service"):
        after = Unit(name).sections.get("Unit", "After").split()

        assert "robot-dispatch-topology.service" in after
        assert {"rabbitmq-server.service", "redis-server.service"} <= set(after)
    assert Unit("robot-dispatch-topology.service").command[1:] == ["-A", "celery_app", "topology", "apply"]


def test_the_target_starts_everything_and_stops_it():
    wanted = Unit("robot-dispatch.target").sections.get("Unit", "Wants").split()

    assert sorted(name.replace("@1", "@") for name in wanted) == SERVICES
    assert all(Unit(name).sections.get("Unit", "PartOf") == "robot-dispatch.target" for name in SERVICES)


def test_the_commands_are_those_of_the_compose_file():
    services = deploy.compose()["services"]
    gateway, flower = (Unit(f"robot-dispatch-{each}.service").command for each in ("gateway", "flower"))

    assert [gateway[0].rpartition("/")[2], *gateway[1:]] == services["gateway"]["command"]
    assert flower[1:4] == services["flower"]["command"][1:4]


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, ["--autoscale=8,2", "-l", "info", "-E"]),
        ({"WORKER_POOL": "--pool=threads", "WORKER_OPTIONS": "-Q robot.task.q.bulk"}, ["--pool=threads", "-l", "info", "-E", "-Q", "robot.task.q.bulk"]),
    ],
)  # fmt: skip
def test_a_worker_has_a_name_of_its_own_at_each_start_and_the_options_of_its_instance(given, options, tmp_path):
    celery = tmp_path / "celery"
    celery.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    celery.chmod(0o755)
    shell, option, command = Unit("robot-dispatch-worker@.service").command

    done = subprocess.run(
        [shell, option, command.replace(f"{HOME}/.venv/bin/celery", str(celery))],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    words = done.stdout.split()

    assert words[:3] == ["-A", "celery_app", "worker"]
    assert words[3:-2] == options
    assert words[-2] == "-n"
    assert re.fullmatch(r"worker-7-\d{10}@%h", words[-1])


def _answers(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_the_gateway_notifies_systemd_when_it_is_ready(tmp_path):
    assert Unit("robot-dispatch-gateway.service")["Type"] == "notify"
    port, notify = free_port(), tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(notify))
        listener.settimeout(60)
        command = Unit("robot-dispatch-gateway.service").command
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *command[1:]],
            cwd=deploy.ROOT,
            env={
                "PATH": os.environ["PATH"],
                "NOTIFY_SOCKET": str(notify),
                "DISPATCH_BROKER_URL": f"amqp://gateway:x@127.0.0.1:{free_port()}/robot",
                "DISPATCH_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
                "DISPATCH_HTTP_PORT": str(port),
                "DISPATCH_HTTP_WORKERS": "1",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert b"READY=1" in listener.recv(4_096)
            eventually(lambda: _answers(port), 60, "its process answers")  # until then it does not end at SIGTERM
        finally:
            process.terminate()
            process.wait(60)

    assert process.returncode == 0
