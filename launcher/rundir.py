"""The files of a run directory."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from launcher.errors import LaunchError


@dataclasses.dataclass(frozen=True)
class RunDir:
    """A run directory: data, logs, ports and pids of one stack, isolated from other stacks."""

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> RunDir:
        """The run directory at a path; creates it if missing.

        Args:
            path: relative to the current directory, or absolute.

        Raises:
            LaunchError: it can't be created or written.
        """
        run = cls(Path(path).resolve())
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.logs.mkdir(mode=0o700, exist_ok=True)
            run.flower.parent.mkdir(mode=0o700, exist_ok=True)
            run.command_lock.touch(mode=0o600)
        except OSError as exc:
            raise LaunchError(
                f"{run.path} can't be used for the stack's data and logs: {exc.strerror}: {exc.filename}; "
                "another directory: DISPATCH_RUN_DIR"
            ) from exc
        return run

    @property
    def key(self) -> str:
        """A short unique name: part of node and worker names."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:10]

    @property
    def logs(self) -> Path:
        """The directory of the logs, one file a process."""
        return self.path / "log"

    @property
    def flower(self) -> Path:
        """What Flower has seen, so that a restart does not forget it: a pickle, which only its owner may replace."""
        return self.path / "flower" / "tasks"

    @property
    def env(self) -> Path:
        """URLs and pids, one ``KEY=value`` a line."""
        return self.path / "env"

    @property
    def state(self) -> Path:
        """The state that the supervisor publishes."""
        return self.path / "state.json"

    @property
    def request(self) -> Path:
        """A command's request to the supervisor."""
        return self.path / "request.json"

    @property
    def ports(self) -> Path:
        """The claimed ports."""
        return self.path / "ports.json"

    @property
    def own(self) -> Path:
        """The URLs of this stack's own servers; kept while it is down."""
        return self.path / "own.json"

    @property
    def supervisor_lock(self) -> Path:
        """Locked by the supervisor while it runs."""
        return self.path / "supervisor.lock"

    @property
    def command_lock(self) -> Path:
        """Locked by a command while it starts or stops processes."""
        return self.path / "command.lock"

    def log(self, name: str) -> Path:
        """The log file of a process.

        Args:
            name: the process's name.
        """
        return self.logs / f"{name}.log"
