"""Each role's user may do what its role needs, and no more: asked of a real broker."""

import amqp.exceptions
import kombu
import pytest
from pydantic import SecretStr

import topology
from dispatch.broker import definitions as files
from dispatch.broker import provision
from dispatch.broker.management import Management, ManagementRefused, vhost
from dispatch.config import settings as configuration
from dispatch.protocol import names
from support import servers as shared
from support.waiting import eventually

ROLES = [role.name for role in files.ROLES]
LEVEL = names.delay_exchange(0)
EXCHANGES = (names.TASK_EXCHANGE, names.RETRY_EXCHANGE, names.DEAD_EXCHANGE, LEVEL)
QUEUES = (names.WORK_QUEUE, names.rung_queue("1m"), names.delay_queue(0), names.RECORDER_QUEUE, names.DEAD_QUEUE)
KEY = names.routing_key("echo")


@pytest.fixture(scope="module")
def loaded(servers):
    """One vhost for all of them, made from nothing but the definitions, with users of its own."""
    for name in shared.vhost(servers):
        host = servers.amqp_url.rpartition("@")[2]
        urls = {f"{role}_broker_url": f"amqp://{role}-{name}:pw@{host}/{name}" for role in ROLES}
        settings = configuration.load(
            {}, broker_url=servers.broker_url(name), management_url=servers.management_url, **urls
        )
        with servers.management() as api:
            api.post(
                "/api/definitions", json=files.definitions(topology.broker_map(settings), settings, users=True)
            ).raise_for_status()
            yield settings
            api.post("/api/users/bulk-delete", json={"users": [f"{role}-{name}" for role in ROLES]}).raise_for_status()


def managed_by(role, settings):
    """The settings with a role's own user for the management API."""
    host = settings.management_url.get_secret_value().rpartition("@")[2]
    return settings.model_copy(update={"management_url": SecretStr(f"http://{role}-{vhost(settings)}:pw@{host}")})


def allowed(settings, role, act):
    """Whether the broker lets a role do this; any other failure is the test's."""
    options = {"confirm_publish": True}
    with kombu.Connection(settings.broker(role), transport_options=options) as connection:
        channel = connection.channel()
        try:
            act(channel)
        except amqp.exceptions.AccessRefused:
            return False
        channel.close()
        return True


def publish_to(exchange, key=KEY):
    headers = {"retry-queue": "1m"}
    return lambda channel: channel.basic_publish(amqp.Message("{}", application_headers=headers), exchange, key)


def get_from(queue):
    return lambda channel: channel.basic_get(queue, no_ack=False)


def depth_of(queue):
    return lambda channel: channel.queue_declare(queue, passive=True)


def test_the_definitions_make_the_whole_map(loaded):
    assert provision.plan(topology.broker_map(loaded), loaded) == []


@pytest.mark.parametrize(
    ("role", "exchanges", "queues"),
    [
        ("gateway", {names.TASK_EXCHANGE, LEVEL}, set()),
        ("worker", {names.RETRY_EXCHANGE, names.DEAD_EXCHANGE}, {names.WORK_QUEUE, names.RECORDER_QUEUE}),
        ("monitor", set(), set()),
        ("control", set(), set()),
        ("replay", {names.TASK_EXCHANGE, LEVEL}, {names.DEAD_QUEUE}),
        ("admin", set(EXCHANGES), set(QUEUES)),
    ],
)
def test_a_role_publishes_and_reads_only_what_it_needs(loaded, role, exchanges, queues):
    published = {exchange for exchange in EXCHANGES if allowed(loaded, role, publish_to(exchange))}
    read = {queue for queue in QUEUES if allowed(loaded, role, get_from(queue))}

    assert published == exchanges
    assert read == queues


@pytest.mark.parametrize("role", ["gateway", "worker", "monitor", "control", "replay"])
def test_no_daily_role_may_purge_delete_or_declare_what_is_ours(loaded, role):
    acts = [
        lambda channel: channel.queue_delete(names.DEAD_QUEUE),
        lambda channel: channel.exchange_delete(names.TASK_EXCHANGE),
        lambda channel: channel.queue_declare("robot.new.q", durable=True, auto_delete=False),
        lambda channel: channel.queue_unbind(names.WORK_QUEUE, names.TASK_EXCHANGE, f"{names.ROUTING_KEY}.#"),
        lambda channel: channel.basic_publish(amqp.Message("{}"), "amq.topic", KEY),
        *([lambda channel: channel.queue_purge(names.DEAD_QUEUE)] if role != "replay" else []),
    ]

    assert [allowed(loaded, role, act) for act in acts] == [False] * len(acts)


def test_remote_control_and_events_are_the_workers_and_controls_alone(loaded):
    """What Celery declares: a user that may write to the first reaches every worker, one that may read the last sees every event."""
    with kombu.Connection(loaded.broker("control")) as connection, connection.channel() as channel:
        channel.exchange_declare("celery.pidbox", "fanout", durable=False)
        channel.queue_declare("celeryev.seen", auto_delete=False)
        acts = {
            "command": publish_to("celery.pidbox", ""),
            "reply": lambda channel: channel.queue_declare("a.reply.celery.pidbox", auto_delete=True),
            "events": get_from("celeryev.seen"),
        }
        may = {what: {role for role in ROLES if allowed(loaded, role, act)} for what, act in acts.items()}

    assert may == {what: {"worker", "control"} for what in acts}


def test_the_gateway_may_ask_for_the_work_queues_depth(loaded):
    assert allowed(loaded, "gateway", depth_of(names.WORK_QUEUE))


def test_the_gateway_and_replay_may_use_no_other_routing_keys(loaded):
    astray = publish_to(names.TASK_EXCHANGE, "robot.task.other")

    assert [allowed(loaded, role, astray) for role in ("gateway", "replay")] == [False, False]


def test_the_admin_may_apply_the_topology_and_change_a_policy(loaded):
    admin = managed_by("admin", loaded)
    with kombu.Connection(admin.broker("admin")) as connection, connection.channel() as channel:
        channel.queue_delete(names.RECORDER_QUEUE)

    changed = admin.model_copy(update={"queue_ttl": 77.0})
    done = provision.apply(topology.broker_map(changed), changed)
    provision.apply(topology.broker_map(admin), admin)

    assert [each.kind for each in done] == ["queue", "binding", "policy"]
    assert provision.plan(topology.broker_map(admin), admin) == []


def test_the_monitor_may_verify_and_look_but_set_no_policy(loaded):
    monitor = managed_by("monitor", loaded)
    changed = monitor.model_copy(update={"queue_ttl": 77.0})

    assert provision.plan(topology.broker_map(monitor), monitor) == []
    with pytest.raises(ManagementRefused):
        provision.apply_policies(topology.broker_map(changed), changed)


@pytest.mark.parametrize("role", ["gateway", "worker", "replay", "control"])
def test_the_other_roles_may_not_use_the_management_api(loaded, role):
    with pytest.raises(ManagementRefused), Management(managed_by(role, loaded)) as management:
        management.queue_stats()


def test_a_role_that_may_not_declare_gets_an_error_with_the_setting_to_change(loaded):
    with (
        kombu.Connection(loaded.broker("gateway")) as connection,
        pytest.raises(provision.TopologyRefused, match="DISPATCH_APPLY_TOPOLOGY=false"),
    ):
        provision.declare(connection, topology.broker_map(loaded), loaded)


def test_loading_the_definitions_again_keeps_the_messages(loaded, servers):
    with kombu.Connection(loaded.broker("admin")) as connection, connection.channel() as channel:
        before = depth_of(names.DEAD_QUEUE)(channel).message_count
        publish_to(names.DEAD_EXCHANGE)(channel)
        with servers.management() as api:
            api.post(
                "/api/definitions", json=files.definitions(topology.broker_map(loaded), loaded, users=True)
            ).raise_for_status()

        eventually(lambda: depth_of(names.DEAD_QUEUE)(channel).message_count == before + 1, 5, "the message is gone")
