"""Files made from the map, or that must agree with it."""

import json
import re
from pathlib import Path

import pytest

import topology
from dispatch.broker import definitions as files
from dispatch.cli import topology as topology_cli
from dispatch.config import settings as configuration
from dispatch.errors import ConfigurationError
from dispatch.protocol import names
from launcher import rabbitmq
from support.cases import each

ROOT = Path(topology.__file__).parent
DEPLOY = ROOT / "deploy" / "rabbitmq"

ROLES = {role.name: role for role in files.ROLES}


@pytest.fixture
def settings():
    return configuration.load({})


@pytest.fixture
def with_users():
    urls = {f"{role}_broker_url": f"amqp://{role}:p%2F{role}@127.0.0.1/robot" for role in ROLES}
    return configuration.load({}, **urls)


def test_the_committed_definitions_are_the_generated_ones(settings):
    committed = json.loads((DEPLOY / "definitions.json").read_text())

    assert committed == files.definitions(topology.broker_map(settings), settings)


def test_the_committed_definitions_hold_no_user():
    assert "password" not in (DEPLOY / "definitions.json").read_text()


def test_the_reference_page_is_the_generated_one(settings):
    committed = (ROOT / "docs" / "reference" / "topology.md").read_text()

    assert committed == topology_cli.reference(topology.broker_map(settings))


def test_rabbitmqs_consumer_timeout_is_the_settings(settings):
    (millis,) = re.findall(r"^consumer_timeout = (\d+)$", (DEPLOY / "rabbitmq.conf").read_text(), re.MULTILINE)

    assert int(millis) == settings.consumer_timeout * 1_000


def test_the_container_retries_dead_letters_as_fast_as_the_development_server():
    def values(text):
        return re.findall(r"(dead_letter_worker_\w+),\s*(\d+)", text)

    assert values((DEPLOY / "advanced.config").read_text()) == values(rabbitmq._ADVANCED)


def test_the_definitions_with_users_name_every_role(with_users):
    made = files.definitions(topology.broker_map(with_users), with_users, users=True)

    assert [user["name"] for user in made["users"]] == list(ROLES)
    assert [permission["user"] for permission in made["permissions"]] == list(ROLES)
    assert "p/worker" not in json.dumps(made)


def test_two_roles_may_not_share_a_user(settings):
    with pytest.raises(ConfigurationError, match="DISPATCH_WORKER_BROKER_URL: another role"):
        files.definitions(topology.broker_map(settings), settings, users=True)


def test_a_role_needs_a_password():
    settings = configuration.load({}, broker_url="amqp://127.0.0.1/robot")

    with pytest.raises(ConfigurationError, match="DISPATCH_GATEWAY_BROKER_URL needs a user and a password"):
        files.definitions(topology.broker_map(settings), settings, users=True)


def test_a_password_is_hashed_as_rabbitmqs_documentation_shows():
    assert (
        files.password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )


@each(
    ("exchange", "may"),
    [("robot.delay.0", True), ("robot.delay.21", True), ("robot.delay.q.1", False), ("robot.delay.1x", False)],
)
def test_the_gateway_publishes_to_the_delay_levels_and_to_none_of_their_queues(exchange, may):
    assert bool(re.search(ROLES["gateway"].write, exchange)) is may


@each("role", ["gateway", "replay"])
def test_a_publisher_may_use_the_routing_keys_of_task_types_only(role):
    ((exchange, pattern),) = ROLES[role].topic

    assert exchange == names.TASK_EXCHANGE
    assert re.search(pattern, names.routing_key("robot.clean"))
    assert re.search(pattern, names.ROUTING_KEY)
    assert not re.search(pattern, "robot.task.dispatcher")
    assert not re.search(pattern, "robotXtask.dispatch.echo")


@each(
    ("name", "ours"),
    [
        ("celery.pidbox", True),
        ("reply.celery.pidbox", True),
        ("worker@host.celery.pidbox", True),
        ("0c9.reply.celery.pidbox", True),
        ("celeryev", True),
        ("celeryev.0c9", True),
        ("robot.task.q", False),
        ("robot.retry", False),
        ("celeryevil", False),
        ("celery_delayed_0", False),
    ],
)
def test_the_workers_declare_what_celery_needs_and_nothing_else(name, ours):
    assert bool(re.search(ROLES["worker"].configure, name)) is ours


@each("role", ["worker", "gateway", "replay", "monitor", "control"])
def test_no_daily_role_may_declare_or_delete_our_queues(role):
    assert not any(re.search(ROLES[role].configure, queue) for queue in ("robot.task.q", "robot.task.dlq", "x"))
