"""Times as clients write them. Pure."""

from __future__ import annotations

import datetime as dt
import math
import re
from fractions import Fraction

#: RFC 3339, 5.6; a leap second is the second after :59.
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(\.\d{1,30})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def millis(text: str) -> int:
    """Epoch milliseconds of an RFC 3339 time, the next whole one.

    Args:
        text: with its offset, e.g. ``2026-11-24T02:36:00Z`` or ``2026-11-24T04:36:00.5+02:00``.

    Raises:
        ValueError: it is none.
    """
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError("a time must be RFC 3339 with its offset, as 2026-11-24T02:36:00Z; in a URL a + is %2B")
    day, minute, second, fraction, offset = match.groups()
    leap = second == "60"
    whole = dt.datetime.fromisoformat(f"{day}T{minute}{'59' if leap else second}{offset.upper()}")
    seconds = (whole - _EPOCH) // dt.timedelta(seconds=1) + leap
    return seconds * 1_000 + math.ceil(Fraction(f"0{fraction}") * 1_000 if fraction else 0)
