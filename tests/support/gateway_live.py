"""The real application on real servers, in this process or under gunicorn."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from app import create_app
from dispatch.config.settings import Settings
from support.waiting import eventually
from support.worker import ROOT, environment


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
def running_gateway(settings: Settings, port: int) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes], Path]]:
    """gunicorn as it is deployed: a client of it, its process, its log."""
    log = Path(settings.run_dir) / "gateway.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "gunicorn", "-c", "python:dispatch.gateway.gunicorn_conf", "app:create_app()"]
    variables = {**environment(settings), "DISPATCH_HTTP_PORT": str(port)}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=sink, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            eventually(lambda: _ready(client), 60, lambda: log.read_text()[-3_000:])
            yield client, process, log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # a failing test may have left it stopped
            process.kill()
            process.wait()
            raise


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
