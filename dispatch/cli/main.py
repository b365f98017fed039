"""Our commands: ``celery -A celery_app dlq | queues | topology`` and ``dispatch keys``. Only assembles."""

from __future__ import annotations

import click

from dispatch.cli.dlq import dlq
from dispatch.cli.keys import keys_group
from dispatch.cli.queues import queues
from dispatch.cli.topology import topology

__all__ = ["dlq", "main", "queues", "topology"]


@click.group()
def main() -> None:
    """Robot Dispatch: commands that need no running system."""


main.add_command(keys_group)
