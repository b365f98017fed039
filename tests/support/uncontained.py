"""The compose file's services as plain processes: their own commands, files and environment, other addresses.

What is different from a container is written here: host names become loopback ports, paths a directory.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dispatch.config import api_keys as keys
from launcher import accounts, rabbitmq
from launcher.ports import Ports
from launcher.processes import spawn
from support import deploy, servers
from support.waiting import eventually

PEPPER = "a-pepper"

#: What an http.request may call: nothing listens there.
UNREACHABLE = "127.0.0.1:1"


class Uncontained:
    """Services that run from the compose file."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.key = keys.token("fleet-a", keys.new_secret())
        scopes = keys.scopes("+".join(keys.SCOPES))
        entry = keys.ApiKey(keys.key_id(self.key), keys.digest(PEPPER, self.key), scopes)
        self.services = deploy.compose(
            DISPATCH_API_KEYS=str(entry),
            DISPATCH_API_KEY_PEPPER=PEPPER,
            DISPATCH_HTTP_ALLOWED_HOSTS=UNREACHABLE,
            FLOWER_BASIC_AUTH="operator:secret",
        )["services"]
        self._ports = Ports(base / "ports.json")
        wanted = ("amqp", "management", "erlang", "epmd", "metrics", "redis", "gateway", "worker", "flower")
        self.port = {name: self._ports.claim(name) for name in wanted}
        self._moved = {
            "rabbitmq:15672": f"127.0.0.1:{self.port['management']}",
            "rabbitmq:5672": f"127.0.0.1:{self.port['amqp']}",
            "redis:6379": f"127.0.0.1:{self.port['redis']}",
            "0.0.0.0": "127.0.0.1",
            "8080": str(self.port["gateway"]),
            "9464": str(self.port["worker"]),
            "5555": str(self.port["flower"]),
            "/var/lib/robot": str(base),
            "/etc/redis": str(base),
            "/tmp/redis.conf": str(base / "running.conf"),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def place(self, text: object) -> str:
        """A command's argument or a variable, as it is outside a container."""
        for there, here in self._moved.items():
            text = re.sub(rf"(?<![\w.]){re.escape(there)}(?!\d)", here, str(text))
        return str(text)

    def environ(self, service: str) -> dict[str, str]:
        """A service's environment, with what a process needs of ours."""
        own = {name: self.place(value) for name, value in self.services[service].get("environment", {}).items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.base), **own, "OTEL_TRACES_EXPORTER": "none"}

    def run(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a service's command, or another one in its place, to its end."""
        command = [*self.services[service].get("entrypoint", []), *(words or self.services[service]["command"])]
        return self._run(service, command)

    def probe(self, service: str) -> subprocess.CompletedProcess[str]:
        """Run a service's health-check."""
        kind, *command = self.services[service]["healthcheck"]["test"]
        return self._run(service, command if kind == "CMD" else ["sh", "-c", *command])

    def healthy(self, service: str, times: int = 1) -> bool:
        """Whether its health-check passes, so many times in a row: each gateway process answers for itself alone."""
        return all(self.probe(service).returncode == 0 for _ in range(times))

    def start(self, service: str) -> None:
        """Start a service's command."""
        self._spawn(service, list(map(self.place, self.services[service]["command"])), self.environ(service))

    def start_rabbitmq(self) -> None:
        """RabbitMQ, with the files that the compose file mounts."""
        node = rabbitmq.RabbitNode(
            name=f"rabbit-{servers.unique('u')}@localhost",
            directory=self.base / "rabbitmq",
            amqp=self.port["amqp"],
            http=self.port["management"],
            distribution=self.port["erlang"],
            epmd=self.port["epmd"],
        )
        spec = rabbitmq.server(node, os.environ, consumer_timeout=600)
        shipped = deploy.DEPLOY / "rabbitmq"
        conf = (shipped / "rabbitmq.conf").read_text() + (shipped / "container.conf").read_text()
        conf = conf.replace("/etc/rabbitmq/definitions", str(node.directory))
        conf += (
            f"listeners.tcp.1 = 127.0.0.1:{node.amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {node.http}\n"
            f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.port['metrics']}\n"
        )
        (node.directory / "rabbitmq.conf").write_text(conf)
        for name in ("advanced.config", "enabled_plugins"):
            shutil.copy(shipped / name, node.directory / name)
        shutil.copy(self.base / "definitions" / "definitions.json", node.directory)
        accounts.assign(node.directory, spec.account)
        epmd = rabbitmq.name_server(node, os.environ)
        self._spawn("epmd", epmd.command, epmd.environ, epmd.account)
        eventually(lambda: epmd.ready("") is None, 20, "epmd answers")
        self._spawn("rabbitmq", spec.command, spec.environ, spec.account)

    def log(self, service: str) -> str:
        """What a service has written to its log."""
        return (self.base / f"{service}.log").read_text(errors="replace")

    def alive(self, service: str) -> bool:
        """Whether a service runs."""
        return self._processes[service].poll() is None

    def _run(self, service: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(self.place, command)),
            env=self.environ(service),
            cwd=deploy.ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _spawn(self, name: str, command, environ, account=None) -> None:
        self._processes[name] = spawn(command, environ, deploy.ROOT, self.base / f"{name}.log", account)

    def end(self) -> None:
        """Kill everything; delete the directory."""
        for process in reversed(self._processes.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._ports.close()
        shutil.rmtree(self.base, ignore_errors=True)


@contextlib.contextmanager
def running() -> Iterator[Uncontained]:
    """Definitions written, RabbitMQ, Redis, gateway, worker and Flower up and healthy."""
    base = Path(tempfile.mkdtemp(prefix="robot-dispatch-compose-"))
    base.chmod(0o711)  # the server's own user passes through it
    system = Uncontained(base)
    try:
        for name in ("definitions", "flower"):
            (base / name).mkdir()
        made = system.run("definitions")
        assert made.returncode == 0, made.stderr
        shipped = (deploy.DEPLOY / "redis" / "redis.conf").read_text()
        (base / "redis.conf").write_text(
            f"{shipped}\nbind 127.0.0.1\nport {system.port['redis']}\n".replace("/data", str(base))
        )
        shutil.copy(deploy.DEPLOY / "redis" / "users.conf", base)
        system.start("redis")
        system.start_rabbitmq()
        listening = f"127.0.0.1:{system.port['amqp']}"
        eventually(lambda: listening in system.log("rabbitmq"), 60, lambda: system.log("rabbitmq")[-3_000:])
        for service in ("gateway", "worker", "flower"):
            system.start(service)
        for service, times in (("gateway", 4), ("worker", 1), ("flower", 1)):
            eventually(
                lambda service=service, times=times: system.healthy(service, times) or not system.alive(service),
                60,
                lambda service=service: system.log(service)[-3_000:],
            )
        yield system
    finally:
        system.end()
