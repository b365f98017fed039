"""Loopback ports: stored, so that a server keeps its port, and locked against other stacks until bound."""

from __future__ import annotations

import json
import random
import socket
from contextlib import closing
from pathlib import Path

from launcher import files
from launcher.errors import LaunchError

#: Below Linux's ephemeral range: a client that keeps reconnecting to a dead server in that range can
#: get the server's port as its source port, connect to itself, and keep the server from binding.
_LOWEST, _HIGHEST = 20_000, 32_000


class Ports:
    """The ports of one run directory.

    Args:
        path: the file that stores them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[int, socket.socket] = {}
        self._claimed: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def claim(self, name: str, requested: int = 0, host: str = "127.0.0.1") -> int:
        """Claim a port for a server, if possible the same as last time.

        Args:
            name: the server's name.
            requested: a port; 0 chooses one.
            host: the address it will be bound to.

        Returns:
            A port that was free when checked.

        Raises:
            LaunchError: the requested port is taken, or none is free.
        """
        if requested:
            if not self.hold(requested, host):
                raise LaunchError(f"port {requested} for {name} is taken on {host}")
            port = requested
        else:
            previous = self._claimed.get(name, 0)
            port = previous if previous and self.hold(previous, host) else self._free(host)
        self._claimed[name] = port
        files.write(self._path, json.dumps(self._claimed, indent=1))
        return port

    def hold(self, port: int, host: str) -> bool:
        """Lock a port against other stacks until its server has bound it: two concurrent starts would both find it free.

        Args:
            port: the port.
            host: the address it will be bound to.

        Returns:
            False when it is taken.
        """
        if port in self._held:
            return True
        if not is_free(port, host):
            return False
        # A name in Linux's abstract socket namespace: one holder, released when the process ends.
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0robot-dispatch-port-{port}")
        except OSError:
            holder.close()
            return False
        self._held[port] = holder
        return True

    def close(self) -> None:
        """Release every port."""
        for holder in self._held.values():
            holder.close()
        self._held.clear()

    def claimed(self, name: str) -> int:
        """The port of a server.

        Args:
            name: the server's name, claimed before.
        """
        return self._claimed[name]

    def _free(self, host: str) -> int:
        taken = set(self._claimed.values())
        for port in random.sample(range(_LOWEST, _HIGHEST), 500):
            if port not in taken and self.hold(port, host):
                return port
        raise LaunchError(f"no free port between {_LOWEST} and {_HIGHEST} on {host}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind this port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT does not block binding
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
