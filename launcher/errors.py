"""The error of the launcher's commands."""

from __future__ import annotations


class LaunchError(Exception):
    """A command failed; the message states the reason and the remedy."""
