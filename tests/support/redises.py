"""Several Redis servers on this machine: a master with a replica under three Sentinels, or a cluster of three masters."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from launcher.ports import Ports
from support.certificates import Certificate
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
    tls: Mapping[str, Any] = dataclasses.field(default_factory=dict)  #: redis-py's options of a client
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
        return redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True, **self.tls)

    @property
    def url(self) -> str:
        return f"{_scheme(self)}://127.0.0.1:{self.port}/0"

    def lose_data(self) -> None:
        """Killed, its files deleted, started again."""
        self.kill()
        for path in self.log.parent.glob("append*"):
            shutil.rmtree(path)
        self.start()

    def written(self) -> int:
        """The end of its append-only file, once everything that it has acknowledged is in it."""
        with self.client() as client:
            eventually(lambda: client.info("persistence")["aof_buffer_length"] == 0, 10)
        return self._file().stat().st_size

    def lose_since(self, written: int) -> None:
        """Killed while its disk was busy, and started again: what it has acknowledged since then is not in its file."""
        self.kill()
        os.truncate(self._file(), written)
        self.start()

    def _file(self) -> Path:
        (found,) = self.log.parent.glob("append*/*.incr.aof")
        return found

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
        return f"{_scheme(self.servers[0])}+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

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
        return f"{_scheme(self.servers[0])}+cluster://{','.join(f'127.0.0.1:{each.port}' for each in self.servers)}"

    def whole(self) -> bool:
        """Whether every node has the owner of every slot."""
        return all(map(_covers, self.servers))

    def keys(self, pattern: str) -> list[set[str]]:
        """What lies on each master."""
        found = []
        for server in self.servers:
            with server.client() as client:
                found.append(set(client.scan_iter(pattern)))
        return found


@dataclasses.dataclass(frozen=True)
class ServerTls:
    """Files of servers that answer over TLS only, and that ask clients, and one another, for a certificate."""

    ca: str
    own: Certificate

    def lines(self, port: int) -> str:
        return (
            f"port 0\ntls-port {port}\ntls-ca-cert-file {self.ca}\ntls-cert-file {self.own.cert}\n"
            f"tls-key-file {self.own.key}\ntls-auth-clients yes\ntls-replication yes\ntls-cluster yes\n"
        )

    def client(self) -> dict[str, Any]:
        """Of the test itself, which may look at servers with any name."""
        return {
            "ssl": True,
            "ssl_check_hostname": False,
            "ssl_ca_certs": self.ca,
            "ssl_certfile": self.own.cert,
            "ssl_keyfile": self.own.key,
        }


def _scheme(server: Server) -> str:
    return "rediss" if server.tls else "redis"


@contextlib.contextmanager
def _servers(tls: ServerTls | None = None) -> Iterator[Callable[..., Server]]:
    base = Path(tempfile.mkdtemp(prefix="robot-dispatch-redis-"))
    ports = Ports(base / "ports.json")
    made: list[Server] = []

    def make(mode: str, lines: str = "", options: tuple[str, ...] = ()) -> Server:
        name = f"{mode}-{len(made)}"
        directory = base / name
        directory.mkdir()
        port = ports.claim(name)
        bus = f"cluster-enabled yes\ncluster-port {ports.claim(f'{name}-bus')}\n" if mode == "cluster" else ""
        listens = tls.lines(port) if tls else f"port {port}\n"
        common = f"{listens}bind 127.0.0.1\ndir {directory}\n{bus}{lines}"
        (directory / "redis.conf").write_text(common)
        server = Server(
            port,
            ["redis-server", str(directory / "redis.conf"), *options],
            directory / "log",
            tls.client() if tls else {},
        )
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
def single(tls: ServerTls | None = None) -> Iterator[Server]:
    """One server, as durable as ours are."""
    with _servers(tls) as make:
        yield make("server", 'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n')


@contextlib.contextmanager
def sentinels(tls: ServerTls | None = None) -> Iterator[Watched]:
    """A master and its replica, watched by three Sentinels that have found each other."""
    durable = "appendonly yes\nrepl-diskless-sync-delay 0\n"
    with _servers(tls) as make:
        master = make("server", durable)
        replica = make("server", f"{durable}replicaof 127.0.0.1 {master.port}\n")
        watch = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        watched = Watched([master, replica], [make("sentinel", watch, ("--sentinel",)) for _ in range(3)])
        eventually(lambda: all(map(_settled, watched.sentinels)), 30, "each Sentinel has the others and the replica")
        yield watched


def _settled(sentinel: Server) -> bool:
    with sentinel.client() as client:
        raw = client.execute_command("SENTINEL", "MASTER", SERVICE)
    known = raw if isinstance(raw, dict) else dict(zip(raw[::2], raw[1::2], strict=True))
    return int(known["num-other-sentinels"]) == 2 and int(known["num-slaves"]) == 1


@contextlib.contextmanager
def cluster(tls: ServerTls | None = None) -> Iterator[Masters]:
    """Three masters that share the slots."""
    with _servers(tls) as make:
        servers = [make("cluster", f"cluster-node-timeout {DOWN_AFTER * 2}\nappendonly yes\n") for _ in range(3)]
        share = _SLOTS // len(servers) + 1
        for number, server in enumerate(servers):
            first = number * share
            with server.client() as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, _SLOTS) - 1)
                for other in servers[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, _bus(other))
        masters = Masters(servers)
        eventually(masters.whole, 30, "every node has the owner of every slot")
        yield masters


def _bus(server: Server) -> int:
    with server.client() as client:
        return int(client.config_get("cluster-port")["cluster-port"])


def _covers(server: Server) -> bool:
    with server.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    known = info if isinstance(info, dict) else dict(line.split(":") for line in info.split())
    return known["cluster_state"] == "ok" and int(known["cluster_known_nodes"]) == 3
