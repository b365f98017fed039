"""A private RabbitMQ whose AMQP port and management API accept TLS only and ask clients for a certificate."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from launcher import accounts, rabbitmq
from launcher.ports import Ports
from launcher.processes import Spec, spawn
from support import servers
from support.certificates import Certificate
from support.waiting import eventually


@dataclasses.dataclass(frozen=True)
class TlsRabbitMQ:
    """Its URLs, by an address that its certificate must have."""

    broker_url: str
    management_url: str


@contextlib.contextmanager
def running(ca: str, own: Certificate) -> Iterator[TlsRabbitMQ]:
    """A running node; killed and deleted at the end.

    Args:
        ca: the authority of its clients.
        own: its certificate.
    """
    base = Path(tempfile.mkdtemp(prefix="robot-dispatch-tls-"))
    base.chmod(0o711)  # the server's own user passes through it
    ports = Ports(base / "ports.json")
    names = ("amqp", "http", "distribution", "epmd", "amqps", "https")
    claimed = {name: ports.claim(name) for name in names}
    node = rabbitmq.RabbitNode(
        name=f"rabbit-{servers.unique('t')}@localhost",
        directory=base / "node",
        **{name: claimed[name] for name in names[:4]},
    )
    epmd = rabbitmq.name_server(node, os.environ)
    spec = rabbitmq.server(node, os.environ, consumer_timeout=600)
    _configure(node.directory, claimed, ca, own)
    log, processes = base / "log", []
    try:
        for each in (epmd, spec):
            processes.append(_start(each, log))
            eventually(lambda each=each: each.ready("") is None, 60, lambda: log.read_text()[-2_000:])
        yield TlsRabbitMQ(
            _secured(rabbitmq.broker_url(claimed["amqps"])), _secured(rabbitmq.management_url(claimed["https"]))
        )
    finally:
        for process in reversed(processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        ports.close()
        shutil.rmtree(base, ignore_errors=True)


def _configure(directory: Path, ports: dict[str, int], ca: str, own: Certificate) -> None:
    """Its files are copies that its own user may read."""
    files = {name: directory / f"{name}.pem" for name in ("cacertfile", "certfile", "keyfile")}
    for target, source in zip(files.values(), (ca, own.cert, own.key), strict=True):
        shutil.copyfile(source, target)
    lines = [f"listeners.ssl.1 = 127.0.0.1:{ports['amqps']}", "management.ssl.ip = 127.0.0.1"]
    lines.append(f"management.ssl.port = {ports['https']}")
    for listener in ("ssl_options", "management.ssl"):
        lines += [f"{listener}.{name} = {path}" for name, path in files.items()]
        lines += [f"{listener}.verify = verify_peer", f"{listener}.fail_if_no_peer_cert = true"]
    with (directory / "rabbitmq.conf").open("a") as conf:
        conf.write("\n".join(lines) + "\n")
    accounts.assign(directory, accounts.choose("rabbitmq", directory))


def _secured(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(scheme=f"{parts.scheme}s").geturl()


def _start(spec: Spec, log: Path) -> subprocess.Popen[bytes]:
    return spawn(spec.command, spec.environ, spec.directory, log, spec.account)
