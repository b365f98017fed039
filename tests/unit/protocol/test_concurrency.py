import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.protocol.concurrency import LONGEST, TypeLimits, clients_name, end_of, fence_of, keys_of, name_of
from dispatch.protocol.message import Message
from dispatch.protocol.pauses import is_what


def message(key=None, task="echo"):
    return Message(b"", {"task": task, **({} if key is None else {"x-concurrency-key": key})})


def test_a_task_without_key_and_limits_has_none():
    assert keys_of(message(), {"other": TypeLimits(2, 5)}) == ()


@pytest.mark.parametrize(
    ("key", "limits", "keys"),
    [
        ("k", {}, [("k", 1)]),
        ("k", {"echo": TypeLimits(3)}, [("k", 3)]),
        ("k", {"echo": TypeLimits(3, 5)}, [("k", 3), ("max_running:echo", 5)]),
        (None, {"echo": TypeLimits(1, 5)}, [("max_running:echo", 5)]),
        (7, {}, []),
        ("", {}, []),
    ],
)
def test_the_keys_of_a_task(key, limits, keys):
    assert list(keys_of(message(key), limits)) == keys


@given(st.text(), st.text())
def test_names_of_different_values_differ_and_can_stand_in_urls_and_redis_keys(one, other):
    name = name_of(one)

    assert (name == name_of(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z0-9._~-]*", name)
    assert len(name) <= LONGEST


def test_no_type_can_make_a_clients_name_or_a_limits():
    assert ":" not in name_of("ada:k") + name_of("max_running:echo")
    assert clients_name("ada", "k") == "ada:k"


@pytest.mark.parametrize("name", [clients_name("a" * 32, "k" * 128), name_of("ä" * 400), "max_running:robot.clean"])
def test_every_key_can_be_paused(name):
    assert is_what(f"key:{name}")


def test_later_copies_have_higher_fences():
    fences = [fence_of(0, 0), fence_of(0, 5), end_of(0), fence_of(1, 0), end_of(1)]

    assert fences == sorted(set(fences))
