"""``python -m bench letters``: `bench.many_letters` on servers of its own."""

from __future__ import annotations

import argparse
import os

from bench.parts.base import Measured, measuring

NAME = "letters"
HELP = "time and memory of listing, recording, redriving and walking many dead letters"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare its options."""
    parser.add_argument("--count", type=int, default=100_000, help="dead letters (%(default)s)")


def measure(options: argparse.Namespace) -> Measured:
    """Print a line for each operation."""
    with measuring() as (on, measured):
        os.environ.update(on.environ)
        from bench import many_letters  # noqa: PLC0415 - imports the whole product, which other parts leave alone

        many_letters.measure(options.count)
    return measured
