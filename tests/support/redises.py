"""Several Redis servers on this machine: a master with a replica under three Sentinels, or a cluster of three masters."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from launcher.ports import Ports
from support.waiting import eventually

SERVICE = "robots"

#: Milliseconds without an answer after which Sentinels and cluster nodes take a server for dead.
DOWN_AFTER = 1_000

_SLOTS = 16_384


@dataclasses.dataclass
class Server:
    """A process and where it answers."""

    port: int
    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        eventually(self.answers, 20, lambda: self.log.read_text()[-2_000:])

    def answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose_data(self) -> None:
        """Killed, its files deleted, started again."""
        self.kill()
        for path in self.log.parent.glob("append*"):
            shutil.rmtree(path)
        self.start()

    def signal(self, number: int) -> None:
        """Only to a process that is not reaped: its pid may be another's by now."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclasses.dataclass
class Watched:
    """A master, its replica, and the Sentinels."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

    def master(self) -> Server:
        """Whom the Sentinels name."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))


@dataclasses.dataclass
class Masters:
    """A cluster's masters."""

    servers: list[Server]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{each.port}' for each in self.servers)}"

    def whole(self) -> bool:
        """Whether every node knows every slot."""
        return all(map(_covers, self.servers))

    def keys(self, pattern: str) -> list[set[str]]:
        """What lies on each master."""
        found = []
        for server in self.servers:
            with server.client() as client:
                found.append(set(client.scan_iter(pattern)))
        return found


@contextlib.contextmanager
def _servers() -> Iterator[Callable[..., Server]]:
    base = Path(tempfile.mkdtemp(prefix="robot-dispatch-redis-"))
    ports = Ports(base / "ports.json")
    made: list[Server] = []

    def make(mode: str, lines: str = "", options: tuple[str, ...] = ()) -> Server:
        name = f"{mode}-{len(made)}"
        directory = base / name
        directory.mkdir()
        port = ports.claim(name)
        bus = f"cluster-enabled yes\ncluster-port {ports.claim(f'{name}-bus')}\n" if mode == "cluster" else ""
        common = f"port {port}\nbind 127.0.0.1\ndir {directory}\n{bus}{lines}"
        (directory / "redis.conf").write_text(common)
        server = Server(port, ["redis-server", str(directory / "redis.conf"), *options], directory / "log")
        made.append(server)
        server.start()
        return server

    try:
        yield make
    finally:
        for server in made:
            server.kill()
        ports.close()
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def single() -> Iterator[Server]:
    """One server, as durable as ours are."""
    with _servers() as make:
        yield make("server", 'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n')


@contextlib.contextmanager
def sentinels() -> Iterator[Watched]:
    """A master and its replica, watched by three Sentinels that know each other."""
    durable = "appendonly yes\nrepl-diskless-sync-delay 0\n"
    with _servers() as make:
        master = make("server", durable)
        replica = make("server", f"{durable}replicaof 127.0.0.1 {master.port}\n")
        watch = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        watched = Watched([master, replica], [make("sentinel", watch, ("--sentinel",)) for _ in range(3)])
        eventually(lambda: all(map(_settled, watched.sentinels)), 30, "the Sentinels know each other and the replica")
        yield watched


def _settled(sentinel: Server) -> bool:
    with sentinel.client() as client:
        raw = client.execute_command("SENTINEL", "MASTER", SERVICE)
    known = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
    return int(known["num-other-sentinels"]) == 2 and int(known["num-slaves"]) == 1


@contextlib.contextmanager
def cluster() -> Iterator[Masters]:
    """Three masters that share the slots."""
    with _servers() as make:
        servers = [make("cluster", f"cluster-node-timeout {DOWN_AFTER * 2}\nappendonly yes\n") for _ in range(3)]
        share = _SLOTS // len(servers) + 1
        for number, server in enumerate(servers):
            first = number * share
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, _SLOTS) - 1)
                for other in servers[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, _bus(other))
        masters = Masters(servers)
        eventually(masters.whole, 30, "every node knows every slot")
        yield masters


def _bus(server: Server) -> int:
    with server.client() as client:
        return int(client.config_get("cluster-port")["cluster-port"])


def _covers(server: Server) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    known = info if isinstance(info, dict) else dict(line.split(":") for line in info.split())
    return known["cluster_state"] == "ok" and int(known["cluster_known_nodes"]) == 3
