"""RFC 3339, and nothing else that a parser might take."""

import pytest

from dispatch.protocol import moments
from support.cases import each


@each(
    ("text", "millis"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.0001Z", 1),
        ("2026-11-24T02:36:00.000Z", 1_795_487_760_000),
        ("2026-11-24t04:36:00.5+02:00", 1_795_487_760_500),
        ("2026-11-23T22:36:00-04:00", 1_795_487_760_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("1969-12-31T23:59:59.25Z", -750),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
    ],
)
def test_a_time_is_its_milliseconds_the_next_whole_one(text, millis):
    assert moments.millis(text) == millis


@each(
    "text",
    [
        "", "now", "1795487760000", "2026-11-24", "2026-11-24T02:36Z", "2026-11-24T02:36:00", "2026-11-24 02:36:00Z",
        "2026-11-24T02:36:00 02:00", "2026-13-24T02:36:00Z", "2026-02-30T02:36:00Z", "2026-11-24T25:36:00Z", "2026-11-24T02:36:61Z",
        "2026-11-24T02:36:00+99:00", "20261124T023600Z", "2026-W48-2T02:36:00Z", "٢٠٢٦-11-24T02:36:00Z", f"2026-11-24T02:36:00.{'1' * 99}Z",
        "2026-11-24T02:36:00Z\n", "0000-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_what_is_no_such_time_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        moments.millis(text)
