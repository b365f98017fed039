"""What is measured beside the system: how late this machine lets a process run, and how much memory processes take."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from support.chaos.facts import Sample
from support.chaos.system import Machine

#: Seconds: the canary's sleep and work, by how much it may be late without a note, and between two looks at memory.
NAP, WORK, TRIFLE, LOOK = 0.02, 0.002, 0.02, 2.0

#: Seconds a process is left to warm up; seconds, and tasks, it must then have been watched before it has a slope.
WARM, WATCHED, ENOUGH = 10.0, 40.0, 300


class Canary:
    """Sleeps and works for a moment, again and again, and notes how much longer that took than it should.

    It runs in the clients' own process, so that it feels what they feel: the machine's load and the interpreter's.
    """

    def __init__(self) -> None:
        self.noise: list[tuple[float, float]] = []

    def run(self, stop: threading.Event) -> None:
        """Measure until stopped."""
        while not stop.is_set():
            began = time.monotonic()
            stop.wait(NAP)
            worked = time.thread_time()
            while time.thread_time() - worked < WORK:
                pass
            late = time.monotonic() - began - NAP - WORK
            if late > TRIFLE:
                self.noise.append((time.time(), round(late, 4)))


class Scales:
    """Weighs gateway workers, worker main processes and their children.

    Args:
        machine: whose.
        tasks: how many tasks have been accepted so far.
    """

    def __init__(self, machine: Machine, tasks: Callable[[], int]) -> None:
        self._machine = machine
        self._tasks = tasks
        self.samples: list[Sample] = []

    def run(self, stop: threading.Event) -> None:
        """Look until stopped."""
        while not stop.wait(LOOK):
            for role, pid in self._processes():
                with contextlib.suppress(OSError, StopIteration, ValueError):
                    self.samples.append(Sample(time.time(), role, pid, _rss(pid), self._tasks()))

    def _processes(self) -> Iterable[tuple[str, int]]:
        machine = self._machine
        with contextlib.suppress(KeyError, OSError):
            yield from [("gateway", pid) for pid in machine.children("gateway")]
        for worker in machine.workers:
            with contextlib.suppress(KeyError, OSError):
                yield "worker main", machine.pid(worker)
                yield from [("worker child", pid) for pid in machine.children(worker)]


def _rss(pid: int) -> int:
    """Resident kB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def slopes(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """How memory grows with the tasks accepted, by role.

    Args:
        samples: of all processes; those that lived too briefly count for nothing.

    Returns:
        For each role: processes, median and greatest slope in kB for 1,000 tasks, and the greatest size in kB.
    """
    lives: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        lives[sample.role, sample.pid].append(sample)
    found: dict[str, list[float]] = defaultdict(list)
    for (role, _), life in lives.items():
        warm = [sample for sample in life if sample.at >= life[0].at + WARM]
        if warm and warm[-1].at - warm[0].at >= WATCHED and warm[-1].tasks - warm[0].tasks >= ENOUGH:
            found[role].append(_slope(warm))
    largest = {role: max(sample.rss for sample in samples if sample.role == role) for role in found}
    return {
        role: {
            "processes": len(each),
            "medianSlope": round(statistics.median(each), 1),
            "greatestSlope": round(max(each), 1),
            "greatestKb": largest[role],
        }
        for role, each in sorted(found.items())
    }


def _slope(life: Sequence[Sample]) -> float:
    tasks = [sample.tasks / 1_000 for sample in life]
    return statistics.linear_regression(tasks, [sample.rss for sample in life]).slope
