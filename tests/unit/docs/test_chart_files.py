"""What the Helm chart takes from the code is as the code has it; after a change: ``python -m tools.chart``."""

import json

import pydantic

from dispatch.config.settings import PREFIX, Settings
from tools import chart


def test_the_charts_files_are_the_codes():
    found = {path.name: path.read_text() for path in (chart.CHART / "files").iterdir()}

    assert found == chart.files(), "run `python -m tools.chart`"


def test_the_charts_settings_are_the_codes():
    assert (chart.CHART / "values.schema.json").read_text() == chart.schema(), "run `python -m tools.chart`"


def test_no_secret_may_be_a_value_of_the_chart():
    secret = {
        PREFIX + name.upper()
        for name, field in Settings.model_fields.items()
        if any(kind is pydantic.SecretStr for kind in (field.annotation, *getattr(field.annotation, "__args__", ())))
    }
    values = json.loads((chart.CHART / "values.schema.json").read_text())["$defs"]["settings"]["properties"]

    assert {
        "DISPATCH_BROKER_URL",
        "DISPATCH_REDIS_URL",
        "DISPATCH_API_KEY_PEPPER",
        "DISPATCH_ROBOT_CLIENT_SECRET",
    } <= secret
    assert secret.isdisjoint(values)
    assert "DISPATCH_API_KEYS" not in values


def test_what_the_chart_sets_itself_are_settings():
    assert set(Settings.model_fields) >= chart.OWN


def test_the_chart_has_a_marker_where_a_role_has_rights_on_the_work_queues():
    roles = {role["name"]: role for role in json.loads(chart.files()["roles.json"])}

    assert roles["worker"]["read"].startswith(f"^({chart.WORK_QUEUES}|robot")
    assert chart.WORK_QUEUES in roles["gateway"]["write"]
    assert "load_definitions" not in chart.files()["rabbitmq.conf"]
