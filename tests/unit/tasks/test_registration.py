"""Every file in tasks/ registers, and declares what it must."""

import pydantic
import pytest

import tasks
from dispatch import tasktypes
from dispatch.config.settings import load
from dispatch.errors import ConfigurationError
from dispatch.protocol.retry import parse_ladder

NAMES = ["echo", "http.request", "robot.clean"]


@pytest.fixture(scope="module")
def registry():
    return tasktypes.load(tasks)


def test_the_shipped_types_are_registered(registry):
    assert set(NAMES) <= set(registry)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_described_and_the_schema_is_camel_case(registry, name):
    properties = registry[name].payload.model_json_schema()["properties"]

    assert [field for field, schema in properties.items() if not schema.get("description")] == []
    assert [field for field in properties if "_" in field] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_type_has_a_summary_and_a_known_ladder(registry, name):
    kind = registry[name]
    rungs = {rung.name for rung in parse_ladder("1m=60,5m=300,30m=1800").rungs}

    assert kind.summary.endswith(".")
    assert set(kind.ladder or ()) <= rungs


@pytest.mark.parametrize("name", NAMES)
def test_every_time_limit_fits_the_brokers_consumer_timeout(registry, name):
    settings = load({})

    assert registry[name].time_limit * settings.prefetch / settings.concurrency_min <= settings.consumer_timeout / 2


class Inner(tasktypes.Payload):
    """Within another."""

    token: pydantic.SecretStr


class Masked(tasktypes.Payload):
    """Secrets in every place, rightly and wrongly declared."""

    right: tasktypes.Secret
    also_right: list[tasktypes.Secret] | None = None
    wrong: pydantic.SecretBytes | None = None
    inner: tuple[Inner, ...] = ()


def test_a_secret_that_pydantic_would_mask_is_refused():
    with pytest.raises(ConfigurationError, match=r"declare Masked.wrong, Inner.token as dispatch.tasktypes.Secret"):
        tasktypes.task("masked", payload=Masked)(lambda *_: {})

    assert "masked" not in tasktypes.registry.registry
