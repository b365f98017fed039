"""Settings: all faults are in one error, no secret is."""

import pathlib

import pytest
from pydantic import SecretStr

from dispatch.config.groups import HandlerSettings
from dispatch.config.settings import GROUPS, Settings, load
from dispatch.errors import ConfigurationError
from tools import settings_reference

DOCS = pathlib.Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


def problems(**environ):
    with pytest.raises(ConfigurationError) as caught:
        load({f"DISPATCH_{name.upper()}": value for name, value in environ.items()})
    return str(caught.value)


def test_the_defaults_are_the_design():
    settings = load({})

    assert [(rung.name, rung.seconds) for rung in settings.ladder.rungs] == [("1m", 60), ("5m", 300), ("30m", 1800)]
    assert settings.prefetch == 40
    assert settings.queue_hard_limit == 12_000
    assert settings.queue_ttl == 3_600
    assert settings.result_ttl == 86_400


def test_a_misspelt_setting_is_refused_with_the_nearest_name():
    assert problems(lader="1m=1") == "DISPATCH_LADER: no such setting; did you mean DISPATCH_LADDER?"


def test_every_problem_is_reported_at_once():
    text = problems(lader="x", http_port="eighty", ladder="1m", redis_url="http:/")

    assert [line.split(":")[0] for line in text.splitlines()] == [
        "DISPATCH_LADER",
        "DISPATCH_REDIS_URL",
        "DISPATCH_LADDER",
        "DISPATCH_HTTP_PORT",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.example"])
def test_a_public_bind_without_keys_is_refused(host):
    assert "DISPATCH_API_KEYS" in problems(http_host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_a_loopback_bind_needs_no_keys(host):
    assert load({"DISPATCH_HTTP_HOST": host}).http_host == host


def test_a_record_may_not_expire_before_its_last_copy():
    assert "DISPATCH_RESULT_TTL must exceed" in problems(result_ttl="60")


def test_secrets_are_never_printed():
    settings = load({"DISPATCH_BROKER_URL": "amqp://u:hush@h/v", "DISPATCH_API_KEY_PEPPER": "hush"})

    assert "hush" not in repr(settings) + str(settings)


def test_a_bad_secret_is_not_echoed():
    assert "hush" not in problems(broker_url="amqp://u:hush@h:99999/v")


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        load({}).http_port = 1


def test_a_role_without_a_url_of_its_own_uses_the_common_one():
    settings = load({"DISPATCH_BROKER_URL": "amqp://all/v", "DISPATCH_REPLAY_BROKER_URL": "amqp://replay/v"})

    assert settings.broker("gateway") == "amqp://all/v"
    assert settings.broker("replay") == "amqp://replay/v"


def test_the_file_for_clients_may_be_sourced():
    assert load({"DISPATCH_HTTP_URL": "http://127.0.0.1:8080"}) == load({})


def test_every_setting_is_described():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_reference_is_generated_from_the_code():
    assert DOCS.read_text() == settings_reference.reference()


def test_what_handlers_may_read_holds_none_of_the_systems_secrets():
    secrets = {
        "broker_url": "amqp://u:hush@h/v",
        "worker_broker_url": "amqp://u:hush@h/v",
        "management_url": "http://u:hush@h",
        "redis_url": "redis://u:hush@h",
        "api_key_pepper": "hush",
        "flower_basic_auth": "u:hush",
    }
    settings = load({}, robot_client_secret="the vendor's", http_allowed_hosts="a,b:8080", **secrets)
    handed = settings.handlers()
    values = [value.get_secret_value() if isinstance(value, SecretStr) else value for _, value in handed]

    assert type(handed) is HandlerSettings
    assert handed.robot_client_secret.get_secret_value() == "the vendor's"
    assert handed.http_allowed_hosts == ("a", "b:8080")
    assert "hush" not in repr(values)
    assert not any(hasattr(handed, name) for name in secrets)


def test_each_setting_is_in_one_group():
    fields = [name for group in GROUPS for name in vars(group)["__annotations__"] if name != "model_config"]

    assert sorted(fields) == sorted(Settings.model_fields)
