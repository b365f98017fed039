"""The specification of a process: how it is started, when it is ready, how it is stopped."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from launcher.accounts import Account

#: Placeholder in a command: replaced by a text that is unique to each start.
START = "{start}"

#: Seconds: timeout of a probe.
PROBE_TIMEOUT = 1.0

#: Returns why a process is not ready; None when it is.
Probe = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Spec:
    """One process of the stack."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]  #: the complete environment
    directory: Path
    ready: Callable[[str], str | None]  #: a probe that receives the text of `START`
    pid_key: str | None = None  #: key of its pid in the ``env`` file
    after: tuple[str, ...] = ()  #: processes that must be ready first
    grace: float = 10.0  #: seconds from SIGTERM to SIGKILL
    address: str = ""  #: shown to the user
    account: Account | None = None  #: its user; None is the caller


def spawn(
    command: Sequence[str], environ: Mapping[str, str], directory: Path, output: Path, account: Account | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a new session, so that it receives no signal of the terminal.

    Args:
        command: program and arguments.
        environ: the complete environment.
        directory: working directory.
        output: file to which stdout and stderr are appended.
        account: its user; None is the caller.

    Raises:
        OSError: it could not be started.
    """
    with output.open("ab") as sink:
        return subprocess.Popen(
            command,
            env=dict(environ),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


def http_probe(url: str, auth: tuple[str, str] | None = None) -> Probe:
    """Ready when a GET responds 2xx.

    Args:
        url: the URL. With ``https``, of a process of ours: its certificate need not be of an authority that this one trusts.
        auth: user and password.
    """

    def probe() -> str | None:
        try:
            response = httpx.get(url, auth=auth, timeout=PROBE_TIMEOUT, trust_env=False, verify=False)  # noqa: S501
        except httpx.HTTPError as exc:
            return f"{url} does not respond: {exc}"
        return None if response.is_success else f"{url} responds {response.status_code}: {response.text[:300]}"

    return probe


def tcp_probe(host: str, port: int) -> Probe:
    """Ready when the address accepts a TCP connection.

    Args:
        host: address.
        port: port.
    """

    def probe() -> str | None:
        try:
            socket.create_connection((host, port), PROBE_TIMEOUT).close()
        except OSError as exc:
            return f"{host}:{port} does not respond: {exc}"
        return None

    return probe


def all_of(*probes: Probe) -> Callable[[str], str | None]:
    """Ready when every probe is.

    Args:
        probes: called in order, up to the first that is not ready.
    """

    def ready(_start: str) -> str | None:
        return next((reason for probe in probes if (reason := probe()) is not None), None)

    return ready
