"""What the launcher must know of a process: how it is started, when it is ready, how it is stopped."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from launcher.accounts import Account

#: In a command: replaced by a text that differs at each start.
START = "{start}"

#: Seconds one look at a process may take.
PROBE_TIMEOUT = 1.0

#: Says why a process isn't ready yet; None when it is.
Probe = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Spec:
    """One process of the stack."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]  #: the whole environment, not an addition
    directory: Path
    ready: Callable[[str], str | None]  #: given this start's text, says why it isn't ready; None when it is
    pid_key: str | None = None  #: its pid's name in the ``env`` file
    after: tuple[str, ...] = ()  #: processes that must be ready before it is started
    grace: float = 10.0  #: seconds from SIGTERM to SIGKILL
    address: str = ""  #: where it answers, for people
    account: Account | None = None  #: the user it runs as; None is the caller


def spawn(
    command: Sequence[str], environ: Mapping[str, str], directory: Path, output: Path, account: Account | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that no terminal's signal reaches it.

    Args:
        command: program and arguments.
        environ: the whole environment, not an addition.
        directory: where it runs.
        output: the file that what it prints is added to.
        account: the user it runs as; None is the caller.

    Raises:
        OSError: it can't be started.
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
    """Ready when a GET answers with a 2xx.

    Args:
        url: what to get.
        auth: user and password.
    """

    def probe() -> str | None:
        try:
            answer = httpx.get(url, auth=auth, timeout=PROBE_TIMEOUT, trust_env=False)
        except httpx.HTTPError as exc:
            return f"{url} does not answer: {exc}"
        return None if answer.is_success else f"{url} answers {answer.status_code}: {answer.text[:300]}"

    return probe


def tcp_probe(host: str, port: int) -> Probe:
    """Ready when something accepts a connection.

    Args:
        host: its address.
        port: its port.
    """

    def probe() -> str | None:
        try:
            socket.create_connection((host, port), PROBE_TIMEOUT).close()
        except OSError as exc:
            return f"{host}:{port} does not answer: {exc}"
        return None

    return probe


def all_of(*probes: Probe) -> Callable[[str], str | None]:
    """Ready when every probe says so.

    Args:
        probes: asked in turn, up to the first that is not ready.
    """

    def ready(_start: str) -> str | None:
        return next((why for probe in probes if (why := probe()) is not None), None)

    return ready
