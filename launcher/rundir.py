"""What lies where in a run directory."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class RunDir:
    """A run directory: data, logs, ports and pids of one stack. Two of them never meet."""

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> RunDir:
        """The run directory at a path, made where it is missing.

        Args:
            path: relative to the current directory, or absolute.
        """
        run = cls(Path(path).resolve())
        run.path.mkdir(parents=True, exist_ok=True)
        run.logs.mkdir(mode=0o700, exist_ok=True)
        return run

    @property
    def key(self) -> str:
        """A short name that no other run directory has: part of node and worker names."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:10]

    @property
    def logs(self) -> Path:
        """Directory of the logs, one a process."""
        return self.path / "log"

    @property
    def env(self) -> Path:
        """Where the URLs and pids are, one ``KEY=value`` a line."""
        return self.path / "env"

    @property
    def state(self) -> Path:
        """What the supervisor says of its processes."""
        return self.path / "state.json"

    @property
    def request(self) -> Path:
        """What a command asks of the supervisor."""
        return self.path / "request.json"

    @property
    def ports(self) -> Path:
        """The ports chosen."""
        return self.path / "ports.json"

    @property
    def own(self) -> Path:
        """The URLs of this stack's own servers, kept when it is down."""
        return self.path / "own.json"

    @property
    def alive(self) -> Path:
        """Locked by the supervisor for as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def turn(self) -> Path:
        """Locked by a command while it starts or stops something."""
        return self.path / "command.lock"

    def log(self, name: str) -> Path:
        """A process's log.

        Args:
            name: the process's name.
        """
        return self.logs / f"{name}.log"
