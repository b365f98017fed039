"""Free loopback ports, remembered so that a server comes back where it was, and held from stack to stack."""

from __future__ import annotations

import json
import random
import socket
from contextlib import closing
from pathlib import Path

from launcher import files
from launcher.errors import LaunchError

#: Below Linux's ephemeral range: a client that keeps reconnecting to a dead server in that range can
#: be handed the server's own port as its source, connect to itself, and keep the server from binding.
_LOWEST, _HIGHEST = 20_000, 32_000


class Ports:
    """The ports of one run directory.

    Args:
        path: where they are remembered.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: dict[int, socket.socket] = {}
        self._known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def claim(self, name: str, wanted: int = 0, host: str = "127.0.0.1") -> int:
        """The port of a server, the same as last time where that is possible.

        Args:
            name: the server's name.
            wanted: a port that was asked for; 0 chooses one.
            host: the address it will be bound to.

        Returns:
            A port that was free a moment ago.

        Raises:
            LaunchError: the wanted port is taken, or none is free.
        """
        if wanted:
            if not self.hold(wanted, host):
                raise LaunchError(f"port {wanted} for {name} is taken on {host}")
            port = wanted
        else:
            known = self._known.get(name, 0)
            port = known if known and self.hold(known, host) else self._free(host)
        self._known[name] = port
        files.write(self._path, json.dumps(self._known, indent=1))
        return port

    def hold(self, port: int, host: str) -> bool:
        """Keep other stacks from a port until its server has bound it, as two that start at once would both find it free.

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
        # A name in Linux's abstract namespace: one holder, and it goes with the process.
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0robot-dispatch-port-{port}")
        except OSError:
            holder.close()
            return False
        self._held[port] = holder
        return True

    def close(self) -> None:
        """Let go of every port."""
        for holder in self._held.values():
            holder.close()
        self._held.clear()

    def known(self, name: str) -> int:
        """The port that a server was given.

        Args:
            name: the server's name, claimed before.
        """
        return self._known[name]

    def _free(self, host: str) -> int:
        taken = set(self._known.values())
        for port in random.sample(range(_LOWEST, _HIGHEST), 500):
            if port not in taken and self.hold(port, host):
                return port
        raise LaunchError(f"no free port between {_LOWEST} and {_HIGHEST} on {host}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could bind this port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
