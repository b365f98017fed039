"""Our commands: ``celery -A celery_app dlq | topology`` and ``dispatch keys``. Only assembles."""

from __future__ import annotations

import click

from dispatch.dlq_cli import dlq
from dispatch.keys_cli import keys_group
from dispatch.topology_cli import topology

__all__ = ["dlq", "main", "topology"]


@click.group()
def main() -> None:
    """Robot Dispatch: commands that need no running system."""


main.add_command(keys_group)
