"""What a part measured, as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness.turns import Samples


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One variant in one case."""

    case: str  #: e.g. ``POST, 16 connections, 2 processes``
    variant: str  #: ``ours`` or a peer
    figures: Mapping[str, Sequence[float]]  #: a value a round


@dataclasses.dataclass(frozen=True)
class PartResult:
    """One run of a part."""

    part: str
    command: str
    began: str  #: UTC
    seconds: float
    load: tuple[float, float]  #: of the machine, before and after
    machine: Mapping[str, str]
    rows: Sequence[ResultRow]
    notes: Sequence[str] = ()

    def save(self, directory: Path) -> Path:
        """Write it as ``<part>.json``; the file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.part}.json"
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def read(cls, path: Path) -> PartResult:
        """Read one that `save` wrote."""
        found = json.loads(path.read_text())
        rows = [ResultRow(**row) for row in found.pop("rows")]
        first, last = found.pop("load")
        return cls(**found, rows=rows, load=(first, last))


def rows_of(samples: Samples) -> list[ResultRow]:
    """The rows of turns that alternated."""
    return [ResultRow(case, variant, figures) for (case, variant), figures in samples.items() if figures]
