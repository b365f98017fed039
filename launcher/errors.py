"""What a command of the launcher can fail with."""

from __future__ import annotations


class LaunchError(Exception):
    """A command could not do its work; the message says why and what to do, for people."""
