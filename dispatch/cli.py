"""Our commands: ``celery -A celery_app dlq | queues | topology`` and ``dispatch keys``. Only assembles."""

from __future__ import annotations

import click

from dispatch.dlq_cli import dlq
from dispatch.keys_cli import keys_group
from dispatch.queues_cli import queues
from dispatch.topology_cli import topology

__all__ = ["dlq", "main", "queues", "topology"]


@click.group()
def main() -> None:
    """Robot Dispatch: commands that need no running system."""


main.add_command(keys_group)
