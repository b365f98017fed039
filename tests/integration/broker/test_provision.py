import contextlib

import amqp.exceptions
import kombu
import pytest
import structlog.testing
from pydantic import SecretStr

import topology
from dispatch.broker import provision
from dispatch.broker.drift import Action, Verdict
from dispatch.broker.management import ManagementRefused, ManagementUnavailable, VhostMissing, vhost
from dispatch.protocol import names
from dispatch.protocol.retry import Ladder, Rung
from support.waiting import eventually

RETURNED = 312


@contextlib.contextmanager
def channel_to(settings, **options):
    with kombu.Connection(settings.broker("admin"), **options) as connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def channel(settings):
    with channel_to(settings) as channel:
        yield channel


@pytest.fixture
def confirmed(settings):
    """A channel whose publishes wait for the broker's confirm."""
    with channel_to(settings, transport_options={"confirm_publish": True}) as channel:
        yield channel


@pytest.fixture
def applied(settings):
    provision.apply(topology.broker_map(settings), settings)
    return settings


def send(channel, exchange, routing_key="robot.task.dispatch.echo", body="{}", **headers):
    message = amqp.Message(body, application_headers=headers, delivery_mode=2)
    channel.basic_publish(message, exchange, routing_key, mandatory=True)


def get(channel, queue, timeout=5.0):
    return eventually(lambda: channel.basic_get(queue, no_ack=True), timeout, f"nothing came to {queue}")


def kinds(found):
    return [(each.kind, each.verdict, each.action) for each in found]


# --- the verbs -----------------------------------------------------------------------------------
def test_an_empty_vhost_is_planned_applied_and_then_verified(settings):
    planned = provision.plan(topology.broker_map(settings), settings)
    done = provision.apply(topology.broker_map(settings), settings)
    report = provision.verify(topology.broker_map(settings), settings)

    assert done == planned
    assert len(planned) == (3 + 4) + (8 + 4) + (8 + 8) + 3
    assert (report.drift, report.differences) == (0, ())
    assert report.version[0].isdigit()


def test_declaring_again_changes_nothing(applied):
    with kombu.Connection(applied.broker("worker")) as connection:
        provision.declare(connection, topology.broker_map(applied), applied)

    assert provision.plan(topology.broker_map(applied), applied) == []


def test_several_broker_urls_are_tried_in_turn(settings):
    alive = settings.broker("admin")
    dead = f"amqp://127.0.0.1:1/{alive.rpartition('/')[2]}"
    both = settings.model_copy(update={"admin_broker_url": SecretStr(f"{dead};{dead};{alive}")})

    provision.apply(topology.broker_map(both), both)

    assert provision.plan(topology.broker_map(settings), settings) == []


def test_without_the_management_api_the_queues_are_declared_and_a_warning_is_logged(settings):
    alone = settings.model_copy(update={"management_url": SecretStr("http://127.0.0.1:1")})

    with kombu.Connection(settings.broker("worker")) as connection, structlog.testing.capture_logs() as lines:
        provision.declare(connection, topology.broker_map(alone), alone)

    assert [line["event"] for line in lines].count("policies not applied") == 1
    assert (
        kinds(provision.plan(topology.broker_map(settings), settings))
        == [("policy", Verdict.MISSING, Action.CREATE)] * 3
    )


def test_a_deleted_queue_is_drift_and_is_created_again_with_its_binding(applied, channel):
    channel.queue_delete(names.LEASE_QUEUE)

    found = provision.plan(topology.broker_map(applied), applied)
    provision.apply(topology.broker_map(applied), applied)

    assert kinds(found) == [("queue", Verdict.MISSING, Action.CREATE), ("binding", Verdict.MISSING, Action.CREATE)]
    assert provision.plan(topology.broker_map(applied), applied) == []


def test_a_deleted_binding_is_drift_and_is_created_again(applied, channel):
    channel.queue_unbind(names.WORK_QUEUE, names.TASK_EXCHANGE, f"{names.ROUTING_KEY}.#")

    found = provision.plan(topology.broker_map(applied), applied)
    provision.apply(topology.broker_map(applied), applied)

    assert kinds(found) == [("binding", Verdict.MISSING, Action.CREATE)]
    assert provision.plan(topology.broker_map(applied), applied) == []


def test_a_deleted_exchange_is_drift_and_is_created_again(applied, channel):
    channel.exchange_delete(names.RETRY_EXCHANGE)

    found = provision.plan(topology.broker_map(applied), applied)
    provision.apply(topology.broker_map(applied), applied)

    assert [each.kind for each in found] == ["exchange"] + ["binding"] * 5
    assert provision.plan(topology.broker_map(applied), applied) == []


def test_changed_settings_update_the_policy(applied):
    tighter = applied.model_copy(update={"queue_ttl": 60.0})

    found = provision.plan(topology.broker_map(tighter), tighter)
    provision.apply(topology.broker_map(tighter), tighter)

    assert kinds(found) == [("policy", Verdict.DIFFERS, Action.UPDATE)]
    assert found[0].detail == "message-ttl is 3600000, the map has 60000"
    assert provision.plan(topology.broker_map(tighter), tighter) == []


def test_what_an_operator_added_is_noted_kept_and_no_drift(applied, channel):
    channel.queue_declare("robot.clean.q", durable=True, auto_delete=False)
    channel.queue_bind("robot.clean.q", names.TASK_EXCHANGE, names.routing_key("robot.clean"))

    report = provision.verify(topology.broker_map(applied), applied)
    done = provision.apply(topology.broker_map(applied), applied)

    assert {each.verdict for each in report.differences} == {Verdict.EXTRA}
    assert (report.drift, done) == (0, [])
    assert provision.verify(topology.broker_map(applied), applied).differences == report.differences


def test_an_old_rung_that_is_no_longer_in_the_ladder_is_noted(applied):
    shorter = applied.model_copy(update={"ladder": Ladder(applied.ladder.rungs[:2])})

    report = provision.verify(topology.broker_map(shorter), shorter)

    assert report.drift == 0
    assert "robot.retry.q.30m" in [each.name for each in report.differences]


# --- conflicts -----------------------------------------------------------------------------------
def test_a_rung_of_another_wait_is_explained_and_nothing_is_changed(applied, channel):
    channel.queue_delete(names.RECORDER_QUEUE)
    slower = applied.model_copy(update={"ladder": Ladder((Rung("1m", 7.0),))})

    with pytest.raises(provision.TopologyConflict, match=r"x-message-ttl is 1000, the map has 7000.*DISPATCH_LADDER"):
        provision.apply(topology.broker_map(slower), slower)

    assert ("queue", names.RECORDER_QUEUE) in [
        (each.kind, each.name) for each in provision.plan(topology.broker_map(slower), slower)
    ]


def test_over_amqp_alone_a_conflict_is_explained_as_well(settings, channel):
    channel.queue_declare(names.WORK_QUEUE, durable=True, auto_delete=False)

    with (
        kombu.Connection(settings.broker("worker")) as connection,
        pytest.raises(provision.TopologyConflict, match=r"x-.*robot\.task\.q\.v2.*migrate-a-queue"),
    ):
        provision.declare(connection, topology.broker_map(settings), settings)


def test_an_exchange_of_another_type_is_explained_over_amqp(settings, channel):
    channel.exchange_declare(names.RETRY_EXCHANGE, "direct", durable=True, auto_delete=False)

    with (
        kombu.Connection(settings.broker("worker")) as connection,
        pytest.raises(provision.TopologyConflict, match=r"'type'.*stop the gateway"),
    ):
        provision.declare(connection, topology.broker_map(settings), settings)


def test_a_queue_is_migrated_as_in_the_guide_while_messages_come_in(applied, channel, confirmed):
    old, new, key = names.WORK_QUEUE, f"{names.WORK_QUEUE}.v2", f"{names.ROUTING_KEY}.#"
    arguments = dict(topology.broker_map(applied).queues[0].arguments)
    send(confirmed, names.TASK_EXCHANGE, body="before")

    channel.queue_declare(new, durable=True, auto_delete=False, arguments=arguments)
    channel.queue_bind(new, names.TASK_EXCHANGE, key)
    send(confirmed, names.TASK_EXCHANGE, body="during")
    channel.queue_unbind(old, names.TASK_EXCHANGE, key)
    send(confirmed, names.TASK_EXCHANGE, body="after")

    assert [get(channel, old).body for _ in range(2)] == ["before", "during"]
    assert channel.queue_declare(old, passive=True).message_count == 0
    channel.queue_delete(old)
    assert [get(channel, new).body for _ in range(2)] == ["during", "after"]


# --- errors --------------------------------------------------------------------------------------
def test_a_management_api_that_is_away_is_one_clear_line(settings):
    away = settings.model_copy(update={"management_url": SecretStr("http://127.0.0.1:1")})

    with pytest.raises(ManagementUnavailable, match=r"at 127\.0\.0\.1:1 did not answer"):
        provision.plan(topology.broker_map(away), away)


def test_a_wrong_password_is_one_clear_line_without_the_password(settings):
    url = settings.management_url.get_secret_value().replace("guest:guest", "guest:s3cret")
    wrong = settings.model_copy(update={"management_url": SecretStr(url)})

    with pytest.raises(ManagementRefused) as caught:
        provision.plan(topology.broker_map(wrong), wrong)

    assert "refused this user" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_missing_vhost_is_one_clear_line(settings):
    url = f"{settings.broker('admin')}-nowhere"
    nowhere = settings.model_copy(update={"broker_url": SecretStr(url)})

    with pytest.raises(VhostMissing, match="-nowhere"):
        provision.plan(topology.broker_map(nowhere), nowhere)


@pytest.mark.parametrize("place", ["127.0.0.1:1", "stranger:wrong@{host}"])
def test_a_broker_that_accepts_no_connection_is_one_clear_line_without_the_password(settings, place):
    host = settings.broker("admin").rpartition("@")[2].partition("/")[0]
    url = f"amqp://{place.format(host=host)}/{vhost(settings)}"
    away = settings.model_copy(update={"admin_broker_url": SecretStr(url)})

    with pytest.raises(provision.BrokerUnreachable, match="DISPATCH_BROKER_URL") as caught:
        provision.apply(topology.broker_map(away), away)

    assert "wrong" not in str(caught.value)


# --- what the map does ---------------------------------------------------------------------------
@pytest.mark.usefixtures("applied")
def test_a_retry_comes_back_after_its_wait_with_its_own_routing_key(channel, confirmed):
    send(confirmed, names.RETRY_EXCHANGE, **{"retry-queue": "1m"})

    assert channel.queue_declare(names.rung_queue("1m"), passive=True).message_count == 1
    back = get(channel, names.WORK_QUEUE)

    assert back.delivery_info["routing_key"] == "robot.task.dispatch.echo"
    assert back.headers["x-death"][0]["queue"] == "robot.retry.q.1m"


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize("place", ["lease", "hold"])
def test_a_parked_copy_comes_back_from_the_lease_queue_and_from_the_hold_queue(channel, confirmed, place):
    send(confirmed, names.RETRY_EXCHANGE, **{"retry-queue": place})

    assert get(channel, names.WORK_QUEUE).delivery_info["routing_key"] == "robot.task.dispatch.echo"


@pytest.mark.usefixtures("applied")
@pytest.mark.parametrize(
    ("exchange", "key", "headers"),
    [
        (names.RETRY_EXCHANGE, "robot.task.dispatch.echo", {"retry-queue": "2h"}),
        (names.RETRY_EXCHANGE, "robot.task.dispatch.echo", {}),
        (names.TASK_EXCHANGE, "robot.other", {}),
    ],
    ids=["an unknown rung", "no rung", "an unknown key"],
)
def test_what_no_queue_is_bound_for_is_returned(confirmed, exchange, key, headers):
    with pytest.raises(amqp.exceptions.ChannelError) as caught:
        send(confirmed, exchange, key, **headers)

    assert caught.value.reply_code == RETURNED


@pytest.mark.usefixtures("applied")
def test_a_dead_letter_of_any_routing_key_reaches_the_dlq_and_the_dead_tap(channel, confirmed):
    send(confirmed, names.DEAD_EXCHANGE, "some.key", body="poison")

    assert get(channel, names.DEAD_QUEUE).body == get(channel, names.RECORDER_QUEUE).body == "poison"


def test_work_that_waits_too_long_expires_to_the_dlq_and_the_dead_tap(settings, channel, confirmed):
    changed = settings.model_copy(update={"queue_ttl": 0.2})
    provision.apply(topology.broker_map(changed), changed)

    send(confirmed, names.TASK_EXCHANGE)
    dead_letters = [get(channel, queue) for queue in (names.DEAD_QUEUE, names.RECORDER_QUEUE)]

    assert [dead_letter.headers["x-death"][0]["reason"] for dead_letter in dead_letters] == ["expired", "expired"]
    assert dead_letters[0].delivery_info["routing_key"] == "robot.task.dispatch.echo"


def test_a_full_work_queue_refuses(settings, confirmed):
    changed = settings.model_copy(update={"queue_depth_limit": 1})
    provision.apply(topology.broker_map(changed), changed)

    def fill():
        for _ in range(50):  # the limit of a quorum queue is soft
            send(confirmed, names.TASK_EXCHANGE)

    with pytest.raises(amqp.exceptions.MessageNacked):
        fill()


def test_a_message_that_is_delivered_too_often_goes_to_the_dlq(settings, channel, confirmed):
    changed = settings.model_copy(update={"delivery_limit": 2})
    provision.apply(topology.broker_map(changed), changed)
    send(confirmed, names.TASK_EXCHANGE)

    for _ in range(3):
        channel.basic_reject(eventually(lambda: channel.basic_get(names.WORK_QUEUE), 5).delivery_tag, requeue=True)

    assert get(channel, names.DEAD_QUEUE).headers["x-death"][0]["reason"] == "delivery_limit"


@pytest.mark.usefixtures("applied")
def test_a_dead_letter_in_the_dlq_may_be_looked_at_as_often_as_one_likes(channel, confirmed):
    send(confirmed, names.DEAD_EXCHANGE)

    for _ in range(40):  # RabbitMQ 4.x would drop it at the 21st without the policy
        dead_letter = eventually(lambda: channel.basic_get(names.DEAD_QUEUE), 5)
        channel.basic_reject(dead_letter.delivery_tag, requeue=True)

    assert get(channel, names.DEAD_QUEUE).body == "{}"
