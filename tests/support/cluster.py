"""Three RabbitMQ nodes that form one cluster on this machine; tests kill one and start it again."""

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from launcher import rabbitmq
from launcher.ports import Ports
from launcher.processes import Spec, spawn
from support import servers
from support.waiting import eventually

#: Seconds for all three nodes to boot and to find each other; 10 to 20 on an idle machine.
BOOT = 100


@dataclasses.dataclass
class Member:
    """A node and its process."""

    node: rabbitmq.RabbitNode
    spec: Spec
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def broker_url(self) -> str:
        return rabbitmq.broker_url(self.node.amqp)

    @property
    def management_url(self) -> str:
        return rabbitmq.management_url(self.node.http)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.process = _start(self.spec, self.log)

    def kill(self) -> None:
        """Kill -9; Erlang's own helpers end with it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A running cluster."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

    @property
    def broker_url(self) -> str:
        """All three, separated by ``;``."""
        return ";".join(member.broker_url for member in self.members)

    @property
    def management_url(self) -> str:
        """All three, separated by ``;``."""
        return ";".join(member.management_url for member in self.members)

    def get(self, path: str) -> Any:
        """What the management API of a live node answers."""
        alive = next(member for member in self.members if member.alive)
        with httpx.Client(base_url=alive.management_url, timeout=10, trust_env=False) as api:
            answer = api.get(f"/api/{path}")
            answer.raise_for_status()
            return answer.json()

    def leader(self, queue: str) -> Member:
        """The node that leads a queue."""
        name = self.get(f"queues/{rabbitmq.VHOST}/{queue}")["leader"]
        return next(member for member in self.members if member.node.name == name)

    def whole(self) -> bool:
        """Whether every node is up and connected to the others."""
        with contextlib.suppress(httpx.HTTPError):
            nodes = self.get("nodes")
            ready = all(member.spec.ready("") is None for member in self.members)
            return ready and sum(node["running"] for node in nodes) == len(self.members)
        return False

    def online(self, queue: str) -> int:
        """Members of a queue that take part."""
        return len(self.get(f"queues/{rabbitmq.VHOST}/{queue}").get("online", ()))

    def version(self) -> str:
        """RabbitMQ's."""
        return self.get("overview")["rabbitmq_version"]


@contextlib.contextmanager
def running_cluster(size: int = 3) -> Iterator[Cluster]:
    """A cluster, all its nodes ready; killed and deleted at the end."""
    base = Path(tempfile.mkdtemp(prefix="robot-dispatch-cluster-"))
    base.chmod(0o711)  # the server's own user passes through it
    ports = Ports(base / "ports.json")
    epmd, members = _planned(base, ports, size)
    name_server = _start(epmd, base / "epmd.log")
    try:
        eventually(lambda: epmd.ready("") is None, 20, "epmd answers")
        for member in members:
            member.start()
        cluster = Cluster(members)
        eventually(cluster.whole, BOOT, lambda: _logs(members))
        yield cluster
    finally:
        for member in members:
            if member.alive:
                member.kill()
        os.killpg(name_server.pid, signal.SIGKILL)
        name_server.wait()
        ports.close()
        shutil.rmtree(base, ignore_errors=True)


def _planned(base: Path, ports: Ports, size: int) -> tuple[Spec, list[Member]]:
    key, cookie = servers.unique("c"), secrets.token_hex(20)
    names = tuple(f"rabbit-{key}-{number}@localhost" for number in range(1, size + 1))
    epmd, members = ports.claim("epmd"), []
    for number, name in enumerate(names, 1):
        node = rabbitmq.RabbitNode(
            name=name,
            directory=base / f"node-{number}",
            amqp=ports.claim(f"amqp-{number}"),
            http=ports.claim(f"management-{number}"),
            distribution=ports.claim(f"erlang-{number}"),
            epmd=epmd,
            cookie=cookie,
            cluster=names,
        )
        spec = rabbitmq.server(node, os.environ, consumer_timeout=600, name=f"rabbitmq-{number}")
        members.append(Member(node, spec, base / f"node-{number}.log"))
    return rabbitmq.name_server(members[0].node, os.environ), members


def _start(spec: Spec, log: Path) -> subprocess.Popen[bytes]:
    return spawn(spec.command, spec.environ, spec.directory, log, spec.account)


def _logs(members: list[Member]) -> str:
    tails = [member.log.read_text(errors="replace")[-1_500:] for member in members]
    return re.sub(r"\n{2,}", "\n", "\n---\n".join(tails))
