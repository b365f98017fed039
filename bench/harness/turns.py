"""Turns that alternate: A B A B, so that a machine that gets slower or faster does so for all variants."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

#: One turn: the figures that it measured.
MeasuredTurn = Callable[[], Mapping[str, float]]

#: The figure with the share of the machine that programs outside of the measurement used, in percent.
OTHERS = "other load %"

#: Above it, a turn is taken again, as long as there are repeats left; the quieter one counts.
_NOISY = 20.0

#: (case, variant) → figure → a value a round.
Samples = dict[tuple[str, str], dict[str, list[float]]]


def interleaved(cases: Mapping[tuple[str, str], MeasuredTurn], rounds: int, *, warm_up: int = 1) -> Samples:
    """Take the turns.

    Args:
        cases: (case, variant) and its turn; the variants of a case should follow one another.
        rounds: turns of each that count.
        warm_up: rounds before these, which do not.

    Returns:
        The values of each figure, in the order of the rounds.
    """
    samples: Samples = {case: {} for case in cases}
    repeats = _Repeats(len(cases))
    for number in range(-warm_up, rounds):
        began = time.monotonic()
        for case, turn in cases.items():
            figures = repeats.quieter(turn) if number >= 0 else turn()
            for figure, value in figures.items() if number >= 0 else ():
                samples[case].setdefault(figure, []).append(value)
        label = f"round {number + 1} of {rounds}" if number >= 0 else "warm-up"
        progress(f"{label}: {time.monotonic() - began:.1f} s")
    return samples


class _Repeats:
    """Turns on a busy machine are taken again, one round more at most in all.

    Args:
        left: how many.
    """

    def __init__(self, left: int) -> None:
        self._left = left

    def quieter(self, turn: MeasuredTurn) -> Mapping[str, float]:
        """The turn, or the quieter of two."""
        figures = turn()
        if figures.get(OTHERS, 0.0) <= _NOISY or not self._left:
            return figures
        self._left -= 1
        return min(figures, turn(), key=lambda one: one[OTHERS])


def progress(line: str) -> None:
    """Write a line for the person that waits."""
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()
