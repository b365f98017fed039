"""Variables of others: those of libraries are taken away and named, those of Kubernetes' service links are not read."""

from pathlib import Path

import pytest

from dispatch.config import foreign, settings
from dispatch.errors import ConfigurationError
from support.cases import each


def test_variables_of_libraries_are_taken_away_and_named_without_their_values():
    environ = {
        "CELERY_BROKER_URL": "amqp://u:hush@other/v",
        "CELERY_WORKER_POOL": "solo",
        "BROKER_URL": "amqp://u:hush@other/v",
        "FLOWER_PORT": "tcp://10.0.0.1:80",
        "FLOWER_URL": "http://127.0.0.1:5555",
        "DISPATCH_BROKER_URL": "amqp://ours/v",
        "PATH": "/bin",
    }

    assert foreign.drop(environ) == [
        "BROKER_URL is ignored: set DISPATCH_BROKER_URL",
        "CELERY_BROKER_URL is ignored: set DISPATCH_BROKER_URL",
        "CELERY_WORKER_POOL is ignored",
        "FLOWER_PORT is ignored: set DISPATCH_FLOWER_PORT",
    ]
    assert environ.keys() == {"FLOWER_URL", "DISPATCH_BROKER_URL", "PATH"}


@each(
    "name",
    ["GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "PORT", "SCRIPT_NAME", "FLASK_DEBUG", "CELERY_BROKER_URL"],
)  # fmt: skip
def test_the_gateway_ignores_gunicorns_and_flasks_variables_too(name):
    environ = {name: "hush", "OTEL_SERVICE_NAME": "x", "HTTP_PROXY": "http://p", "C_FORCE_ROOT": "1"}
    (line,) = foreign.drop(environ, foreign.GATEWAY)

    assert line.startswith(f"{name} is ignored")
    assert "hush" not in line
    assert environ.keys() == {"OTEL_SERVICE_NAME", "HTTP_PROXY", "C_FORCE_ROOT"}


def test_each_ignored_variable_is_documented():
    text = (Path(__file__).parents[3] / "docs/reference/environment.md").read_text()
    names = {*foreign.GATEWAY.names, *(f"{prefix}…" for prefix in foreign.GATEWAY.prefixes)}

    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_commands_keep_what_only_the_gateway_reads():
    assert foreign.drop({"PORT": "1", "SCRIPT_NAME": "/x", "GUNICORN_CMD_ARGS": "--bind :1"}) == []


@each(
    ("name", "value", "link"),
    [
        ("DISPATCH_PORT", "tcp://10.96.0.7:8080", True),
        ("DISPATCH_SERVICE_HOST", "10.96.0.7", True),
        ("DISPATCH_SERVICE_PORT", "8080", True),
        ("DISPATCH_SERVICE_PORT_HTTP", "8080", True),
        ("DISPATCH_PORT_8080_TCP", "tcp://10.96.0.7:8080", True),
        ("DISPATCH_PORT_8080_TCP_ADDR", "10.96.0.7", True),
        ("DISPATCH_PORT_8080_TCP_PROTO", "tcp", True),
        ("DISPATCH_FLOWER_PORT", "tcp://10.96.0.8:5555", True),
        ("DISPATCH_FLOWER_PORT", "5555", False),
        ("DISPATCH_PORT", "8080", False),
        ("DISPATCH_HTTP_PORT", "tcp", False),
        ("DISPATCH_BROKER_URL", "tcp://h", False),
    ],
)
def test_a_service_link_is_recognised(name, value, link):
    assert foreign.is_service_link(name, value) is link


def test_service_links_change_no_setting():
    links = {"DISPATCH_PORT": "tcp://10.96.0.7:8080", "DISPATCH_FLOWER_PORT": "tcp://10.96.0.8:5555"}

    assert settings.load(links) == settings.load({})
    with pytest.raises(ConfigurationError, match="DISPATCH_PORT: no such setting"):
        settings.load({"DISPATCH_PORT": "8080"})


@each("name", sorted(settings.Settings.model_fields))
def test_an_empty_variable_is_unset(name):
    assert settings.load({f"DISPATCH_{name.upper()}": " "}) == settings.load({})
