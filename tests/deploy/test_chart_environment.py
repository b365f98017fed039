"""The chart, the settings, the roles at RabbitMQ and the compose file agree: each container starts with its environment."""

import re
import shutil
from urllib.parse import urlsplit

import pytest

import topology
from dispatch.broker import definitions
from dispatch.config import settings as configuration
from dispatch.protocol.lanes import parse_lanes
from launcher import environments
from support import chart as charts
from support import deploy
from support.cases import each
from support.certificates import Authority

OURS = ("gateway", "worker", "flower", "topology")

#: Variables of others that a container of ours may have.
OTHERS = {
    "REMAP_SIGTERM", "REDIS_USERNAME", "REDIS_PASSWORD", "OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
}  # fmt: skip

#: What the Secrets of the chart's shared keys have in these tests: values in the form that the settings want.
KEYS = {
    "DISPATCH_MESSAGE_KEYS": f"2026a:{'k' * 32}",
    "DISPATCH_ENCRYPTION_KEYS": "A" * 43 + "=",
    "DISPATCH_CALLBACK_SECRETS": "c" * 32,
    "DISPATCH_WEBHOOK_SECRETS": "whsec_" + "d" * 32,
}

#: Where the pods' files are.
MOUNTED = "/etc/robot-dispatch/"


def ours(variant):
    """Containers of our image by component."""
    return {
        container["name"]: container
        for container in charts.containers(charts.rendered(variant)).values()
        if "robot-dispatch" in container["image"]
    }


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """The directory in which the pods' mounted files are, with what their Secrets would have."""
    root = tmp_path_factory.mktemp("mounted")
    authority = Authority(root, "internal")
    server = authority.issue("gateway")
    for where in ("rabbitmq-ca", "redis-ca", "client-ca", "tls", "api-keys"):
        (root / where).mkdir()
    for where in ("rabbitmq-ca", "redis-ca", "client-ca"):
        shutil.copy(authority.ca, root / where / "ca.crt")
    shutil.copy(server.cert, root / "tls" / "tls.crt")
    shutil.copy(server.key, root / "tls" / "tls.key")
    return root


def settings_of(container, mounted):
    given = {**charts.variables(container)}
    given.update({name: value for name, value in KEYS.items() if name in given})
    return configuration.load({name: value.replace(MOUNTED, f"{mounted}/") for name, value in given.items()})


@each("variant", charts.VARIANTS)
def test_every_container_of_ours_starts_with_its_environment(variant, mounted):
    containers = ours(variant)

    assert set(containers) <= set(OURS)
    for container in containers.values():
        settings_of(container, mounted)


@each("variant", charts.VARIANTS)
def test_every_variable_is_a_setting_or_one_that_libraries_read(variant):
    for container in ours(variant).values():
        names = [each["name"] for each in container["env"]]
        ours_ = {name for name in names if name.startswith(configuration.PREFIX)}

        assert {name.removeprefix(configuration.PREFIX).lower() for name in ours_} <= set(
            configuration.Settings.model_fields
        )
        assert {name for name in names if name not in ours_ and not name.startswith("RABBITMQ_")} <= OTHERS
        assert len(names) == len(set(names))


@each("variant", charts.VARIANTS)
def test_no_reference_is_left_in_a_value(variant):
    for container in charts.containers(charts.rendered(variant)).values():
        left = [name for name, value in charts.variables(container).items() if re.search(r"\$\(\w+\)", value)]

        assert left == []


@each("variant", charts.VARIANTS)
def test_a_process_has_the_secrets_that_it_needs_and_no_others(variant):
    for name, container in ours(variant).items():
        process = "admin" if name == "topology" else name
        given = {
            each["name"].removeprefix(configuration.PREFIX).lower()
            for each in container["env"]
            if each["name"].startswith(configuration.PREFIX)
        }
        for setting in given & set(environments.OWNERS):
            mine = environments.OWNERS[setting] | ({"admin"} if setting in {"broker_url", "management_url"} else set())
            assert process in mine, (name, setting)


@each(
    ("name", "roles"),
    [
        ("gateway", {"gateway", "monitor"}),
        ("worker", {"worker", "replay", "monitor"}),
        ("flower", {"control", "monitor"}),
        ("topology", {"admin"}),
    ],
)
def test_a_process_connects_as_its_roles(name, roles, mounted):
    settings = settings_of(ours("default")[name], mounted)
    urls = [settings.broker_url.get_secret_value(), settings.management_url.get_secret_value()]
    if settings.replay_broker_url is not None:
        urls.append(settings.replay_broker_url.get_secret_value())

    assert {urlsplit(url).username for url in urls} == roles
    assert {urlsplit(url).password for url in urls} == {f"robot-dispatch-rabbitmq-{role}-password" for role in roles}
    assert {urlsplit(url).path for url in urls if url.startswith("amqp")} == {"/robot"}


def test_the_rights_at_rabbitmq_are_those_of_the_roles():
    for variant in ("default", "lanes"):
        objects = charts.rendered(variant)
        settings = configuration.load(charts.variables(ours(variant)["gateway"]))
        for role in definitions.roles(topology.broker_map(settings)):
            user = charts.named(objects, "User", f"rabbitmq-{role.name}")["spec"]
            rights = charts.named(objects, "Permission", f"rabbitmq-{role.name}")["spec"]

            assert tuple(user.get("tags", ())) == role.tags
            assert user["importCredentialsSecret"]["name"] == f"robot-dispatch-rabbitmq-{role.name}"
            assert rights["permissions"] == {"configure": role.configure, "write": role.write, "read": role.read}
            assert rights["userReference"]["name"] == f"robot-dispatch-rabbitmq-{role.name}"
        topics = {
            (
                each["spec"]["userReference"]["name"].rpartition("-")[2],
                each["spec"]["permissions"]["exchange"],
                each["spec"]["permissions"]["write"],
            )
            for each in charts.of_kind(objects, "TopicPermission")
        }
        assert topics == {(role.name, *right) for role in definitions.ROLES for right in role.topic}


def test_lanes_are_the_same_for_every_process_and_are_what_the_pools_consume(mounted):
    found = ours("lanes")
    lanes = {str(settings_of(each, mounted).lanes) for each in found.values()}
    containers = charts.containers(charts.rendered("lanes"))
    consumed = {
        name.removeprefix("robot-dispatch-worker-"): re.search(r" -Q (\S+) ", charts.arguments(container)[-1])[1].split(
            ","
        )
        for name, container in containers.items()
        if container["name"] == "worker"
    }

    assert lanes == {str(parse_lanes("bulk=echo,http.request;robots=robot.*"))}
    assert {settings_of(each, mounted).shards for each in found.values()} == {3}
    assert consumed == {
        "default": ["robot.task.q", "robot.task.q.shard.1", "robot.task.q.shard.2"],
        "bulk": ["robot.task.q.bulk"],
        "robots": ["robot.task.q.robots", "robot.task.q", "robot.task.q.shard.1", "robot.task.q.shard.2"],
    }


def test_the_settings_of_a_pool_win_over_those_of_all(mounted):
    containers = charts.containers(charts.rendered("lanes"))
    robots, bulk = (settings_of(containers[f"robot-dispatch-worker-{pool}"], mounted) for pool in ("robots", "bulk"))

    assert robots.http_allowed_hosts == ("vendor.example:8443",)
    assert bulk.http_allowed_hosts == ()
    assert (bulk.queue_depth_limit, bulk.redis_prefix) == (10_000_000, "fleet:")
    assert (bulk.worker_threads, robots.concurrency_max, robots.concurrency_min) == (80, 4, 4)


def test_the_commands_are_those_of_the_compose_file():
    services = deploy.compose()["services"]
    found = ours("default")

    assert charts.arguments(found["gateway"]) == services["gateway"]["command"]
    assert charts.arguments(found["worker"]) == services["worker"]["command"]
    assert charts.arguments(found["flower"]) == services["flower"]["command"]
    threads = charts.containers(charts.rendered("lanes"))["robot-dispatch-worker-bulk"]
    assert "worker --pool=threads -l info -E -Q robot.task.q.bulk -n" in charts.arguments(threads)[-1]


def test_external_servers_are_reached_by_their_own_addresses(mounted):
    settings = settings_of(ours("external")["worker"], mounted)
    broker = settings.broker_url.get_secret_value().split(";")

    assert [urlsplit(url).hostname for url in broker] == [f"{node}.rabbitmq.example" for node in "abc"]
    assert urlsplit(settings.management_url.get_secret_value()).netloc.endswith("@rabbitmq.example:8672")
    assert settings.redis_url.get_secret_value() == (
        "redis+sentinel://worker:robot-dispatch-redis-worker-password@s1.example:26379,s2.example:26379/robots/0"
    )


def test_tls_is_used_for_every_connection_where_it_is_asked_for(mounted):
    for name, container in ours("tls").items():
        settings = settings_of(container, mounted)

        assert urlsplit(settings.broker_url.get_secret_value()).scheme == "amqps"
        assert urlsplit(settings.broker_url.get_secret_value()).port == 5671
        assert urlsplit(settings.management_url.get_secret_value()).scheme == "https"
        assert settings.broker_tls_ca.endswith("rabbitmq-ca/ca.crt")
        if name in {"gateway", "worker"}:
            assert settings.redis_url.get_secret_value().startswith("rediss://")
            assert settings.redis_tls_ca.endswith("redis-ca/ca.crt")
    cluster = charts.named(charts.rendered("tls"), "RabbitmqCluster", "rabbitmq")["spec"]
    assert cluster["tls"] == {"secretName": "rabbitmq-tls", "disableNonTLSListeners": True}
    (keda,) = charts.of_kind(charts.rendered("tls"), "TriggerAuthentication")
    assert {each["parameter"] for each in keda["spec"]["secretTargetRef"]} == {"username", "password", "ca"}
    assert keda["spec"]["configMapTargetRef"][0]["parameter"] == "tls"


@each("variant", charts.VARIANTS)
def test_every_file_that_a_setting_names_is_mounted_in_a_directory(variant):
    for template in charts.pods(charts.rendered(variant)).values():
        (container,) = template["spec"]["containers"]
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        named = [value for value in charts.variables(container).values() if value.startswith("/")]

        assert {path.rpartition("/")[0] for path in named} <= mounts
        assert {each["name"] for each in container["volumeMounts"]} == {
            each["name"] for each in template["spec"]["volumes"]
        } | ({"data"} if container["name"] == "redis" else set())
        assert all("subPath" not in each for each in container["volumeMounts"])  # it would never be renewed


def test_rabbitmq_has_the_repositorys_configuration_without_what_operators_do():
    given = charts.named(charts.rendered(), "RabbitmqCluster", "rabbitmq")["spec"]["rabbitmq"]
    own = charts.repository("deploy/rabbitmq/rabbitmq.conf")
    settings = configuration.load({})

    assert given["advancedConfig"].strip() == charts.repository("deploy/rabbitmq/advanced.config").strip()
    assert set(_assignments(own)) - set(_assignments(given["additionalConfig"])) == {"load_definitions"}
    assert _assignments(given["additionalConfig"]).items() <= _assignments(own).items()
    assert _assignments(given["additionalConfig"])["consumer_timeout"] == f"{settings.consumer_timeout * 1_000:.0f}"


def _assignments(text):
    return dict(re.findall(r"^([a-z_.]+) = (.+)$", text, re.MULTILINE))


def test_redis_keeps_records_and_has_the_prefix_of_the_keys():
    default = charts.named(charts.rendered(), "ConfigMap", "redis")["data"]
    other = charts.named(charts.rendered("lanes"), "ConfigMap", "redis")["data"]
    smaller = charts.named(charts.rendered("default", "--set", "redis.maxmemory=100mb"), "ConfigMap", "redis")["data"]

    assert default["redis.conf"].strip() == charts.repository("deploy/redis/redis.conf").strip()
    assert default["users.conf"].strip() == charts.repository("deploy/redis/users.conf").strip()
    assert "~fleet:* &fleet:task:*" in other["users.conf"]
    assert "~robot:" not in other["users.conf"]
    assert re.findall(r"^maxmemory (\S+)$", smaller["redis.conf"], re.MULTILINE) == ["100mb"]


def test_redis_has_twice_the_memory_of_its_records():
    values = deploy.load("deploy/helm/robot-dispatch/values.yaml")["redis"]

    assert int(values["maxmemory"].removesuffix("mb")) * 2 <= int(
        values["resources"]["limits"]["memory"].removesuffix("Mi")
    )


def test_a_stop_leaves_time_to_finish():
    gunicorn = charts.repository("dispatch/gateway/gunicorn_conf.py")
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)$", gunicorn, re.MULTILINE)
    for variant in ("default", "fixed"):
        templates = charts.pods(charts.rendered(variant))
        worker = templates["robot-dispatch-worker-default"]["spec"]
        gateway = templates["robot-dispatch-gateway"]["spec"]
        soft = float(charts.variables(worker["containers"][0])["DISPATCH_SOFT_SHUTDOWN"])

        assert worker["terminationGracePeriodSeconds"] == soft + 20
        assert charts.variables(worker["containers"][0])["REMAP_SIGTERM"] == "SIGQUIT"
        asleep = gateway["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert gateway["terminationGracePeriodSeconds"] >= asleep + int(graceful) + 10
