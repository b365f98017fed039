"""Free ports."""

import atexit
import random
from pathlib import Path

from launcher.ports import Ports

#: Below Linux's ephemeral range: a port in it may become a client connection's own before the server has bound it.
_RANGE = range(20_000, 32_000)

_held = Ports(Path("/nonexistent"))  # only holds ports; nothing is remembered
_given: set[int] = set()
atexit.register(_held.close)


def free_port() -> int:
    """A loopback port that is free and that no other test process and no launcher is given while this one runs."""
    for port in random.sample(_RANGE, 1_000):
        if port not in _given and _held.hold(port, "127.0.0.1"):
            _given.add(port)
            return port
    raise AssertionError("no port is free")
