"""Why a benchmark could not measure."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """A program under measurement, or a tool, did not do its part; the text has its last output."""
