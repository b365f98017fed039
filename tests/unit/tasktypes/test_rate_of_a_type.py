"""The rate that a task type is registered with."""

import pytest

from dispatch.errors import ConfigurationError
from dispatch.protocol.concurrency import MAX_LIMIT, TypeLimits
from dispatch.protocol.rates import Rate, RateLimit
from dispatch.tasktypes import registry as registry_module
from dispatch.tasktypes.payload import Payload
from dispatch.tasktypes.registry import Registry, rates_of, task


@pytest.fixture
def registry(monkeypatch):
    made = Registry()
    monkeypatch.setattr(registry_module, "registry", made)
    return made


def test_a_type_has_the_rate_that_it_is_registered_with(registry):
    task("mow", payload=Payload, rate="600/m", max_running=3)(lambda *_: {})
    task("rest", payload=Payload, max_running=3)(lambda *_: {})
    task("sow", payload=Payload)(lambda *_: {})

    assert [registry[name].limits for name in ("mow", "rest", "sow")] == [
        TypeLimits(1, 3, Rate(600, 60)),
        TypeLimits(1, 3),
        None,
    ]
    assert rates_of(registry) == (RateLimit("mow", Rate(600, 60)),)


@pytest.mark.parametrize("rate", ["", "10", "0/s", "10/day", "10001/s", 10, 1.5, ("10/s",)])
def test_a_rate_without_a_meaning_is_refused_where_the_type_is_registered(registry, rate):
    with pytest.raises(
        ConfigurationError, match='task mow: a rate is "10/s", "600/m" or "1000/h", with a count of 1 to 10000, not'
    ):
        task("mow", payload=Payload, rate=rate)

    assert not registry


@pytest.mark.parametrize(("name", "number"), [("limit", 0), ("max_running", 0), ("max_running", MAX_LIMIT + 1)])
@pytest.mark.usefixtures("registry")
def test_so_is_a_limit(name, number):
    with pytest.raises(ConfigurationError, match=f"task mow: {name} is 1 to {MAX_LIMIT}"):
        task("mow", payload=Payload, **{name: number})(lambda *_: {})
