"""HTTP load on a number of connections, by wrk: as fast as the answers come."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bench.harness.errors import BenchmarkFailed

_SCRIPT = Path(__file__).with_name("request.lua")

#: Seconds beyond its duration after which wrk is stuck.
_MARGIN = 30.0


@dataclasses.dataclass(frozen=True)
class WrkRequest:
    """What each connection sends."""

    url: str
    body: str = ""  #: a POST with it; a GET without
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keyed: bool = False  #: with an Idempotency-Key of its own each


@dataclasses.dataclass(frozen=True)
class WrkOutcome:
    """What wrk counted."""

    answered: int  #: with a status below 400
    seconds: float
    failed: int  #: answers of 400 and above, and connections that broke
    cpu: float  #: seconds that wrk itself used
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second that were answered well."""
        return self.answered / self.seconds


def run(request: WrkRequest, *, connections: int, seconds: float, run_id: str) -> WrkOutcome:
    """Load a server.

    Args:
        request: the same for all.
        connections: how many are open, each with one request under way.
        seconds: how long, whole seconds.
        run_id: makes Idempotency-Keys unique.

    Raises:
        BenchmarkFailed: wrk failed.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", "-s", str(_SCRIPT), request.url]
    headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
    own = {"BODY": request.body, "HEADERS": headers, "KEYED": "1" if request.keyed else "", "RUN_ID": run_id}
    before = os.times()
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, timeout=seconds + _MARGIN, check=False
    )
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return parsed(done.stdout, cpu)


def parsed(output: str, cpu: float) -> WrkOutcome:
    """Read the line that ``request.lua`` prints in the end.

    Args:
        output: wrk's.
        cpu: seconds that it used.

    Raises:
        BenchmarkFailed: there is none.
    """
    lines = [line for line in output.splitlines() if line.startswith("OUTCOME ")]
    if not lines:
        raise BenchmarkFailed(f"wrk printed no outcome:\n{output[-1_000:]}")
    requests, micros, refused, broken, p50, p99 = (float(word) for word in lines[-1].split()[1:])
    answered = round(requests - refused)
    return WrkOutcome(answered, micros / 1e6, round(refused + broken), cpu, p50 / 1e3, p99 / 1e3)


def require() -> None:
    """Check that wrk is installed.

    Raises:
        BenchmarkFailed: it is not.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkFailed("wrk is not installed: make bench-setup, or apt-get install wrk")
