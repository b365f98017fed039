"""Every file in tasks/ registers, and says what it needs to."""

import re
import subprocess
import sys
from pathlib import Path

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
    rungs = {rung.name for rung in parse_ladder("1m=60,5m=300,30m=1800")}

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


def test_importing_the_task_types_brings_in_no_framework_and_opens_no_client():
    code = (
        "import sys, gc, tasks; from dispatch import tasktypes; tasktypes.load(tasks); import httpx\n"
        "print([m for m in ('flask', 'redis', 'kombu', 'celery', 'amqp') if m in sys.modules],"
        " [o for o in gc.get_objects() if isinstance(o, httpx.Client)])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.strip() == "[] []"


def test_the_how_to_shows_code_that_registers_and_tests_that_pass():
    root = Path(__file__).parents[3]
    handler, test = re.findall(r"```python\n(.*?)```", (root / "docs/how-to/add-a-task-type.md").read_text(), re.DOTALL)
    program = "\n".join(
        [
            f"import sys; sys.path.insert(0, {str(root / 'tests')!r})",
            handler,
            test.replace("from tasks.doors import MoveDoor, move", ""),
            "test_a_door_is_open_or_closed()",
            "from dispatch.tasktypes.registry import registry; print(registry['door.move'])",
        ]
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)

    assert done.stderr == ""
    assert "ladder=('1m', '5m'), time_limit=60, summary='Move a door" in done.stdout
