"""``python -m bench telemetry``: `bench.telemetry_cost` on servers of its own."""

from __future__ import annotations

import argparse
import os

from bench.parts.base import Measured, measuring

NAME = "telemetry"
HELP = "CPU of logs, metrics and traces, each alone and together, for a POST and for a task"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--tables", default="requests,tasks", help="comma-separated (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """Print the tables."""
    with measuring() as (on, measured):
        os.environ.update(on.environ)
        from bench import telemetry_cost  # noqa: PLC0415 - imports the whole product, which other parts leave alone

        telemetry_cost.measure(options.tables.split(","))
    return measured
