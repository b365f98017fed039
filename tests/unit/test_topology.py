import dataclasses
import re
from pathlib import Path

import pytest

import topology
from dispatch.broker import provision
from dispatch.broker.definitions import ROLES, roles
from dispatch.broker.drift import Action, Verdict, differences
from dispatch.broker.model import Binding, BrokerMap, Exchange, Policy, Queue
from dispatch.config import settings as configuration
from dispatch.protocol import names
from dispatch.protocol.lanes import parse_lanes, parse_limits


@pytest.fixture
def settings():
    return configuration.load({})


@pytest.fixture
def wanted(settings):
    return topology.broker_map(settings)


def found(wanted, **changes):
    return differences(wanted, dataclasses.replace(wanted, **changes), names.PREFIX)


def replaced(items, name, **changes):
    return tuple(dataclasses.replace(item, **changes) if item.name == name else item for item in items)


def test_the_names_on_the_wire_are_those_of_the_design(wanted):
    names = [each.name for each in (*wanted.exchanges, *wanted.queues)]

    assert names == [
        "robot.task.topic",
        "robot.retry",
        "robot.task.dlx",
        *(f"robot.delay.{level}" for level in range(22)),
        "robot.task.q",
        "robot.retry.q.1m",
        "robot.retry.q.5m",
        "robot.retry.q.30m",
        "robot.retry.q.lease",
        "robot.hold.q",
        *(f"robot.delay.q.{level}" for level in range(22)),
        "robot.task.dead.q",
        "robot.task.dlq",
    ]


def test_each_rung_waits_as_long_as_in_the_ladder(wanted):
    waits = {queue.name: queue.arguments.get("x-message-ttl") for queue in wanted.queues}

    assert waits == {
        "robot.task.q": None,
        "robot.retry.q.1m": 60_000,
        "robot.retry.q.5m": 300_000,
        "robot.retry.q.30m": 1_800_000,
        "robot.retry.q.lease": 30_000,
        "robot.hold.q": 600_000,
        **{f"robot.delay.q.{level}": 1_000 * 2**level for level in range(22)},
        "robot.task.dead.q": None,
        "robot.task.dlq": None,
    }


def test_every_queue_is_a_durable_quorum_queue(wanted):
    assert all(queue.durable and queue.arguments["x-queue-type"] == "quorum" for queue in wanted.queues)


def test_whatever_dead_letters_does_so_at_least_once(wanted):
    dead_lettering = [queue.arguments for queue in wanted.queues if "x-dead-letter-exchange" in queue.arguments]

    assert len(dead_lettering) == 6 + 22
    for arguments in dead_lettering:
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        assert arguments["x-overflow"] == "reject-publish"


def test_a_rung_sends_back_to_the_task_exchange_and_leaves_the_routing_key_alone(wanted):
    rung = next(queue for queue in wanted.queues if queue.name == "robot.retry.q.5m")

    assert rung.arguments["x-dead-letter-exchange"] == "robot.task.topic"
    assert "x-dead-letter-routing-key" not in rung.arguments
    assert wanted.bindings_of(rung.name) == (
        Binding("robot.retry", rung.name, "", {"retry-queue": "5m", "x-match": "all"}),
    )


def test_a_delay_level_sends_on_to_the_level_below_and_the_last_one_to_the_task_exchange(wanted):
    onward = {
        queue.name: queue.arguments["x-dead-letter-exchange"] for queue in wanted.queues if ".delay.q." in queue.name
    }
    past = {
        binding.exchange: binding.queue
        for binding in wanted.bindings
        if binding.exchange.startswith("robot.delay.") and binding.to == "exchange"
    }

    below = ["robot.task.topic", *(f"robot.delay.{level}" for level in range(21))]
    assert list(onward.values()) == below
    assert list(past.values()) == below
    assert not any("x-dead-letter-routing-key" in queue.arguments for queue in wanted.queues)


def test_every_exchange_of_a_delay_level_goes_by_its_own_bit_alone(wanted):
    for level in range(22):
        bindings = [each for each in wanted.bindings if each.exchange == f"robot.delay.{level}"]

        assert [dict(each.arguments) for each in bindings] == [
            {f"delay-{level}": "1", "x-match": "all"},
            {f"delay-{level}": "0", "x-match": "all"},
        ]
        assert bindings[0].queue == f"robot.delay.q.{level}"


@pytest.mark.parametrize("levels", [0, 1, 7])
def test_fewer_delay_levels_are_the_lower_part_of_more(wanted, levels):
    fewer = topology.broker_map(configuration.load({}, delay_levels=levels))

    assert all(exchange in wanted.exchanges for exchange in fewer.exchanges)
    assert all(queue in wanted.queues for queue in fewer.queues)
    assert all(binding in wanted.bindings for binding in fewer.bindings)
    assert len([queue for queue in fewer.queues if ".delay." in queue.name]) == levels
    assert len(fewer.policies) == (3 if levels else 2)


def test_a_dead_letter_reaches_both_the_people_and_the_workers(wanted):
    fed = {binding.queue for binding in wanted.bindings if binding.exchange == "robot.task.dlx"}

    assert fed == {"robot.task.dlq", "robot.task.dead.q"}


def test_the_limits_of_the_work_queue_are_a_policy(wanted, settings):
    policy = wanted.policy_of("robot.task.q")

    assert policy.definition == {"message-ttl": 3_600_000, "max-length": 12_000, "delivery-limit": 200}
    assert policy.definition["max-length"] > settings.queue_depth_limit


@pytest.mark.parametrize("queue", ["robot.task.q.v2", "xrobot.task.q", "robotxtask.q", "robot.task.dlq"])
def test_the_work_queues_policy_governs_no_other_queue(wanted, queue):
    policy = next(policy for policy in wanted.policies if policy.name == names.WORK_POLICY)

    assert not policy.governs(queue)


def test_a_delay_level_refuses_beyond_its_limit(wanted, settings):
    policy = wanted.policy_of("robot.delay.q.21")

    assert policy.definition == {"delivery-limit": names.UNLIMITED, "max-length": settings.delay_limit}
    assert not policy.governs("robot.delay.q.x")


@pytest.mark.parametrize(
    "queue", ["robot.retry.q.1m", "robot.retry.q.lease", "robot.hold.q", "robot.task.dlq", "robot.task.dead.q"]
)
def test_queues_that_keep_messages_have_no_delivery_limit_worth_the_name(wanted, queue):
    assert wanted.policy_of(queue).definition == {"delivery-limit": names.UNLIMITED}


def test_the_same_map_as_found_has_no_differences(wanted):
    assert found(wanted) == []


@pytest.mark.parametrize("kind", ["exchanges", "queues", "bindings", "policies"])
def test_what_is_missing_would_be_created(wanted, kind):
    missing = found(wanted, **{kind: ()})

    assert len(missing) == len(getattr(wanted, kind))
    assert {(each.verdict, each.action, each.drift) for each in missing} == {(Verdict.MISSING, Action.CREATE, True)}


def test_a_queue_with_another_argument_is_refused_argument_by_argument(wanted):
    live = replaced(wanted.queues, "robot.task.q", arguments={"x-queue-type": "classic", "x-max-priority": 5})

    (difference,) = found(wanted, queues=live)

    assert difference.action is Action.REFUSE
    assert difference.detail.split("; ") == [
        "x-dead-letter-exchange is unset, the map has robot.task.dlx",
        "x-dead-letter-strategy is unset, the map has at-least-once",
        "x-max-priority is 5, the map has unset",
        "x-overflow is unset, the map has reject-publish",
        "x-queue-type is classic, the map has quorum",
    ]


def test_an_exchange_of_another_type_is_refused(wanted):
    (difference,) = found(wanted, exchanges=replaced(wanted.exchanges, "robot.retry", type="direct"))

    assert (difference.action, difference.detail) == (Action.REFUSE, "type is direct, the map has headers")


def test_a_policy_that_differs_would_be_updated(wanted):
    live = replaced(wanted.policies, "robot.task.q", definition={"message-ttl": 5}, pattern="^x$")

    (difference,) = found(wanted, policies=live)

    assert difference.action is Action.UPDATE
    assert difference.queues == ("robot.task.q",)
    assert "message-ttl is 5, the map has 3600000" in difference.detail
    assert "pattern is ^x$" in difference.detail


def test_a_strangers_policy_that_takes_a_queue_over_is_drift(wanted):
    stranger = Policy("ha", ".*", {"message-ttl": 1}, priority=9)

    taken_over = found(wanted, policies=(*wanted.policies, stranger))

    assert {each.queues for each in taken_over} == {(queue.name,) for queue in wanted.queues}
    assert all(each.drift and each.action is Action.REFUSE for each in taken_over)


@pytest.mark.parametrize(
    "stranger", [Policy("low", ".*", {}, -1), Policy("x", ".*", {}, 9, "exchanges"), Policy("(", "(", {}, 9)]
)
def test_a_strangers_policy_that_governs_none_of_our_queues_is_no_drift(wanted, stranger):
    assert found(wanted, policies=(*wanted.policies, stranger)) == []


def test_what_an_operator_added_is_noted_and_kept(wanted):
    queues = (*wanted.queues, Queue("robot.clean.q", {}), Queue("foreign.q", {}))
    exchanges = (*wanted.exchanges, Exchange("robot.other", "fanout"), Exchange("amq.topic", "topic"))
    bindings = (*wanted.bindings, Binding("robot.task.topic", "robot.clean.q", "robot.task.dispatch.robot.clean"))

    extra = found(wanted, queues=queues, exchanges=exchanges, bindings=bindings)

    assert [(each.kind, each.action, each.drift) for each in extra] == [
        ("exchange", Action.KEEP, False),
        ("queue", Action.KEEP, False),
        ("binding", Action.KEEP, False),
    ]


def test_a_binding_that_feeds_our_queue_from_elsewhere_is_noted(wanted):
    foreign = Binding("amq.topic", "robot.task.q", "#")

    (difference,) = found(wanted, bindings=(*wanted.bindings, foreign))

    assert str(foreign) in str(difference)


def test_an_empty_vhost_misses_everything(wanted):
    empty = BrokerMap((), (), (), ())

    missing = differences(wanted, empty, names.PREFIX)

    assert len(missing) == (3 + 22) + (8 + 22) + (8 + 44) + 3


@pytest.mark.parametrize(
    ("kind", "name", "detail", "way"),
    [
        ("queue", "robot.retry.q.1m", "x-message-ttl is 1, the map has 2", "DISPATCH_LADDER"),
        ("queue", "robot.retry.q.lease", "x-message-ttl is 1, the map has 2", "DISPATCH_LEASE_PARK"),
        ("queue", "robot.hold.q", "x-message-ttl is 1, the map has 2", "DISPATCH_HOLD_TTL"),
        ("queue", "robot.delay.q.5", "x-message-ttl is 1, the map has 2", "run empty"),
        ("queue", "robot.task.q", "x-overflow is unset, the map has reject-publish", "robot.task.q.v2"),
        ("exchange", "robot.retry", "type is direct, the map has headers", "stop the gateway"),
    ],
)
def test_a_conflict_names_the_way_out(kind, name, detail, way):
    text = provision.conflict(kind, name, detail)

    assert detail in text
    assert way in text
    assert "docs/how-to/migrate-a-queue.md" in text


def test_routing_keys_and_queues_follow_from_names():
    assert names.routing_key("robot.clean") == "robot.task.dispatch.robot.clean"
    assert names.rung_queue("5m") == "robot.retry.q.5m"
    assert (names.delay_exchange(5), names.delay_queue(5)) == ("robot.delay.5", "robot.delay.q.5")


def test_no_name_of_the_map_is_written_a_second_time_in_the_code():
    literal = re.compile(r'"robot\.(task\.(q|dlq|dead\.q|topic|dlx)|retry|delay\.[^"]*)"')
    sources = [Path(topology.__file__), *Path(topology.__file__).parent.glob("dispatch/**/*.py")]

    assert [path.name for path in sources if literal.search(path.read_text())] == ["names.py"]


LANES = parse_lanes("bulk=echo;robots=robot.*")


def test_without_lanes_nothing_is_replaced_and_no_exchange_is_added(wanted):
    assert (wanted.replaced, wanted.closed) == ((), ())
    assert not any("lane" in exchange.name for exchange in wanted.exchanges)


def test_lanes_have_queues_like_the_one_that_all_others_share(settings):
    with_lanes = topology.broker_map(settings.model_copy(update={"lanes": LANES}))
    one, *others = [queue for queue in with_lanes.queues if names.is_work_queue(queue.name)]
    policies = [with_lanes.policy_of(queue.name) for queue in (one, *others)]

    assert [queue.name for queue in others] == ["robot.task.q.bulk", "robot.task.q.robots"]
    assert [dict(queue.arguments) for queue in others] == [dict(one.arguments)] * 2
    assert [policy.name for policy in policies] == ["robot.task.q", "robot.task.q.bulk", "robot.task.q.robots"]
    assert [policy.definition for policy in policies] == [policies[0].definition] * 3
    assert not any(policy.governs("robot.task.q.v2") for policy in policies)
    assert topology.ONE_QUEUE in with_lanes.replaced
    assert topology.ONE_QUEUE not in with_lanes.bindings
    assert with_lanes.bindings[2:4] == (
        Binding("robot.task.lanes", "robot.task.q.robots", "robot.task.dispatch.robot.#"),
        Binding("robot.task.topic", "robot.task.lanes", "robot.task.dispatch.#", to="exchange"),
    )


def test_a_binding_that_lanes_replace_is_removed_and_any_other_extra_one_is_kept(settings):
    with_lanes = topology.broker_map(settings.model_copy(update={"lanes": LANES}))
    stale = Binding("robot.task.lanes", "robot.task.q.bulk", "robot.task.dispatch.moved")
    own = Binding("robot.task.topic", "mine", "#")
    extra = found(with_lanes, bindings=(*with_lanes.bindings, topology.ONE_QUEUE, stale, own))

    assert [(each.action, each.drift) for each in extra] == [
        (Action.REMOVE, True), (Action.REMOVE, True), (Action.KEEP, False)
    ]  # fmt: skip


def test_the_roles_have_their_rights_on_every_lane_and_on_no_more(settings):
    def may(wanted, role, right, queue):
        return re.search(getattr({each.name: each for each in roles(wanted)}[role], right), queue) is not None

    with_lanes = topology.broker_map(settings.model_copy(update={"lanes": LANES}))
    asked = [("gateway", "write"), ("worker", "read")]

    assert roles(topology.broker_map(settings)) == ROLES
    assert all(may(with_lanes, *each, queue) for each in asked for queue in ("robot.task.q", "robot.task.q.bulk"))
    assert not any(
        may(with_lanes, *each, queue)
        for each in asked
        for queue in ("robot.task.q.x", "robot.task.dlq", "xrobot.task.q")
    )


def test_a_lane_with_a_limit_of_its_own_has_the_brokers_limit_above_that(settings):
    limits = parse_limits("bulk=50000;robots=5")
    with_lanes = topology.broker_map(settings.model_copy(update={"lanes": LANES, "lane_depth_limits": limits}))
    queues = ("robot.task.q", "robot.task.q.bulk", "robot.task.q.robots")

    assert [with_lanes.policy_of(queue).definition["max-length"] for queue in queues] == [12_000, 60_000, 6]


def test_without_shards_nothing_is_replaced_and_no_exchange_is_added(wanted):
    assert not any("shard" in exchange.name for exchange in wanted.exchanges)
    assert [queue.name for queue in wanted.queues if names.is_work_queue(queue.name)] == ["robot.task.q"]


def test_shards_have_queues_like_the_one_that_is_there_without_them(settings):
    sharded = topology.broker_map(settings.model_copy(update={"shards": 3}))
    one, *others = [queue for queue in sharded.queues if names.is_work_queue(queue.name)]
    policy = sharded.policy_of("robot.task.q")

    assert [queue.name for queue in others] == ["robot.task.q.shard.1", "robot.task.q.shard.2"]
    assert [dict(queue.arguments) for queue in others] == [dict(one.arguments)] * 2
    assert [sharded.policy_of(queue.name).definition for queue in others] == [policy.definition] * 2
    assert (sharded.replaced, sharded.closed) == ((topology.ONE_QUEUE,), ("robot.task.shards", "robot.task.shard.0"))
    assert sharded.bindings[:4] == (
        Binding("robot.task.shard.0", "robot.task.q"),
        Binding("robot.task.shards", "robot.task.q.shard.1", "", {"shard": "1", "x-match": "all"}),
        Binding("robot.task.shards", "robot.task.q.shard.2", "", {"shard": "2", "x-match": "all"}),
        Binding("robot.task.topic", "robot.task.shards", "robot.task.dispatch.#", to="exchange"),
    )


def test_with_lanes_the_default_lane_has_the_shards(settings):
    both = topology.broker_map(settings.model_copy(update={"lanes": LANES, "shards": 2}))
    into_shards = [binding.exchange for binding in both.bindings if binding.queue == "robot.task.shards"]
    work = [queue.name for queue in both.queues if names.is_work_queue(queue.name)]

    assert into_shards == ["robot.task.lane.default"]
    assert work == ["robot.task.q", "robot.task.q.shard.1", "robot.task.q.bulk", "robot.task.q.robots"]
    assert topology.DEFAULT_LANE in both.replaced
    assert topology.ONE_QUEUE not in both.bindings
    assert topology.DEFAULT_LANE not in both.bindings


def test_the_roles_have_their_rights_on_every_shard(settings):
    sharded = topology.broker_map(settings.model_copy(update={"shards": 2}))
    by_name = {role.name: role for role in roles(sharded)}

    assert re.search(by_name["worker"].read, "robot.task.q.shard.1")
    assert re.search(by_name["gateway"].write, "robot.task.q.shard.1")  # asks for its depth
    assert not re.search(by_name["worker"].read, "robot.task.q.shard.2")
