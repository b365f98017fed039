"""Ids that are derived: the same from the same, a time that can be read, and no two alike."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.ids import derived_id, issued_at

PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=20)), min_size=1, max_size=4)


@given(st.integers(0, 2**48 - 1), PARTS)
def test_a_derived_id_is_a_uuid7_with_its_time_and_always_the_same(millis, parts):
    made = derived_id(millis, *parts)

    assert made == derived_id(millis, *parts)
    assert (uuid.UUID(made).version, uuid.UUID(made).variant) == (7, uuid.RFC_4122)
    assert round(issued_at(made) * 1_000) == millis


@given(PARTS, PARTS)
def test_other_parts_make_another_id(one, other):
    assert (derived_id(0, *one) == derived_id(0, *other)) == (one == other)
