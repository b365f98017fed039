"""The real application on real servers, in this process or under gunicorn."""

import contextlib
import json
import ssl
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from app import create_app
from dispatch.config.settings import Settings
from support import processes
from support.certificates import Certificate
from support.waiting import eventually
from support.worker import environment


@contextlib.contextmanager
def gateway(settings: Settings, *, ready: bool = True) -> Iterator[Any]:
    """A client of the application; by default once it is ready."""
    app = create_app(settings)
    client = app.test_client()
    try:
        if ready:
            eventually(lambda: client.get("/readyz").status_code == 200, 15, lambda: client.get("/readyz").text)
        yield client
    finally:
        app.extensions["close"]()


@contextlib.contextmanager
def running_gateway(
    settings: Settings,
    port: int,
    *,
    ca: str = "",
    certificate: Certificate | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[tuple[httpx.Client, processes.Forked | subprocess.Popen[bytes], Path]]:
    """gunicorn as it is deployed: a client of it, its process, its log.

    Args:
        settings: the gateway's.
        port: its port.
        ca: it speaks HTTPS; the authority of its certificate.
        certificate: what the client presents.
        environ: further variables.
    """
    log = Path(settings.run_dir) / "gateway.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["-c", "python:dispatch.gateway.gunicorn_conf", "app:create_app()"]
    # What is imported before gunicorn's worker patches the standard library keeps locks that block all greenlets.
    variables = {**environment(settings), "DISPATCH_HTTP_PORT": str(port), processes.FRESH: "1", **(environ or {})}
    log.touch()
    process = processes.start("gunicorn", words, environ=variables, output=processes.Output(log, log))
    try:
        verify = ssl.create_default_context(cafile=ca) if ca else False
        if certificate is not None:
            verify.load_cert_chain(certificate.cert, certificate.key)
        url = f"http{'s' if ca else ''}://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=verify) as client:
            ready, probe = set[int](), f"/{uuid.uuid4()}"
            count = int(variables.get("DISPATCH_HTTP_WORKERS", settings.http_workers))
            eventually(lambda: _ready(url, verify, log, probe, ready) >= count, 60, lambda: log.read_text()[-3_000:])
            yield client, process, log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # a failing test may have left it stopped
            process.kill()
            process.wait()
            raise


def _ready(url: str, verify: ssl.SSLContext | bool, log: Path, probe: str, ready: set[int]) -> int:
    """How many processes are ready, each for itself: only the log has which one a connection has met.

    Args:
        url: the gateway's.
        verify: as of `httpx.Client`.
        log: the gateway's, and perhaps that of gateways before it.
        probe: a path of this gateway's requests alone.
        ready: pids of those that were; those that are met now are added.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(httpx.TransportError):
        for _ in range(4):  # side by side: one after the other, the same process may take each
            fresh = stack.enter_context(httpx.Client(base_url=url, timeout=30, trust_env=False, verify=verify))
            if fresh.get("/readyz").status_code == 200:
                fresh.get(probe)
    met = (json.loads(line) for line in log.read_text().splitlines() if probe in line)
    ready.update(line["process"] for line in met)
    return len(ready)
