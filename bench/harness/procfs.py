"""CPU time and memory of processes and of all that they started, from ``/proc``."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

#: Fields of the first line of /proc/stat: user nice system idle iowait irq softirq steal.
_IDLE, _IOWAIT, _STEAL = 3, 4, 7

_TICKS = 100.0  #: a second, in /proc/stat

_GONE = (FileNotFoundError, ProcessLookupError)


def tree(pid: int) -> Iterator[int]:
    """A process and its live descendants."""
    yield pid
    with contextlib.suppress(*_GONE):
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(*_GONE):
                for child in (thread / "children").read_text().split():
                    yield from tree(int(child))


def cpu(pid: int) -> float:
    """CPU seconds that a process and its live descendants have used; of live threads only, in nanoseconds in ``schedstat``."""
    return sum(own_cpu(member) for member in tree(pid))


def own_cpu(pid: int) -> float:
    """CPU seconds of a process alone."""
    total = 0
    with contextlib.suppress(*_GONE):
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with contextlib.suppress(*_GONE):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def pss(pid: int) -> float:
    """Bytes of memory of a process and its live descendants, pages that they share counted once (PSS)."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(*_GONE):
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{member}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) * 1_024 if found else 0
    return total


@dataclasses.dataclass(frozen=True)
class MachineTime:
    """CPU seconds of the whole machine since it started."""

    total: float
    idle: float
    stolen: float

    @classmethod
    def now(cls) -> MachineTime:
        """Read it."""
        fields = [int(word) / _TICKS for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return cls(sum(fields), fields[_IDLE] + fields[_IOWAIT], fields[_STEAL])


class CpuMeter:
    """CPU seconds of named programs since it was made, and what others used meanwhile.

    Args:
        programs: the pids of each; their descendants count as well.
    """

    def __init__(self, programs: Mapping[str, Iterable[int]]) -> None:
        self._programs = {name: tuple(pids) for name, pids in programs.items()}
        self._before = self._read()
        self._machine = MachineTime.now()

    def per_operation(self, operations: int) -> dict[str, float]:
        """CPU µs of each program an operation, by ``<name> CPU µs``."""
        after = self._read()
        each = max(1, operations)
        return {f"{name} CPU µs": (after[name] - self._before[name]) / each * 1e6 for name in after}

    def others(self, own: float = 0.0) -> float:
        """Share of the machine that neither was idle nor belongs to the programs.

        Args:
            own: CPU seconds of the client, which is a program of the measurement, too.
        """
        machine = MachineTime.now()
        total = machine.total - self._machine.total
        busy = total - (machine.idle - self._machine.idle)
        measured = sum(self._read().values()) - sum(self._before.values())
        return max(0.0, (busy - measured - own) / total) if total else 0.0

    def _read(self) -> dict[str, float]:
        return {name: sum(cpu(pid) for pid in pids) for name, pids in self._programs.items()}
