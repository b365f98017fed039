"""The shape of a part, and options that several have."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bench.harness import machine, servers
from bench.harness.ours import Checkout
from bench.harness.results import ResultRow
from bench.harness.servers import ROOT, BenchServers

OURS = "ours"


@dataclasses.dataclass
class Measured:
    """What a part found."""

    machine: Mapping[str, str]
    rows: Sequence[ResultRow]
    notes: Sequence[str] = ()


class BenchPart(Protocol):
    """A part of ``python -m bench``."""

    NAME: str  #: of its command and its file
    HELP: str  #: one line

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def measure(self, options: argparse.Namespace) -> Measured:
        """Run it on servers of its own."""


def add_rounds(parser: argparse.ArgumentParser, default: int) -> None:
    """The option ``--rounds``."""
    parser.add_argument("--rounds", type=int, default=default, help="turns of each variant that count (%(default)s)")


def add_trees(parser: argparse.ArgumentParser) -> None:
    """The option ``--tree``, which compares checkouts, and ``--no-peers``."""
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another checkout, measured beside this one, which is `ours`; may be repeated",
    )
    parser.add_argument("--no-peers", action="store_true", help="only checkouts")


def checkouts(options: argparse.Namespace, on: BenchServers) -> list[Checkout]:
    """This checkout and those of ``--tree``, each with its vhost and its Redis database."""
    named = {OURS: ROOT} | {name: Path(path) for name, path in (text.split("=", 1) for text in options.tree)}
    return [Checkout.prepared(name, path, on, database) for database, (name, path) in enumerate(named.items())]


@contextlib.contextmanager
def measuring(**settings: object) -> Iterator[tuple[BenchServers, Measured]]:
    """Servers, and a result to fill in.

    Args:
        settings: of the servers and of each program of ours.
    """
    with servers.started(**settings) as on:
        yield on, Measured(machine.described(on), [])
