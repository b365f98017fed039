"""docker-compose.yml, its environment, the settings and the broker map agree."""

import re
import tomllib
from urllib.parse import urlsplit

import topology
from dispatch.broker import definitions
from dispatch.config import settings as configuration
from support import deploy
from support.cases import each

KEYS = "fleet-a:" + "0" * 64 + ":tasks:read"
COMPOSE = deploy.compose(DISPATCH_API_KEYS=KEYS, FLOWER_BASIC_AUTH="operator:secret")
SERVICES = COMPOSE["services"]

#: Services of our own image that read settings, and the broker's user that each gets.
USERS = {"gateway": "gateway", "worker": "worker", "flower": "control", "admin": "admin"}

#: They run once, or their image has nothing to probe with.
WITHOUT_HEALTH = {"definitions", "admin", "otel-collector"}


def settings_of(service):
    return configuration.load({name: str(value) for name, value in SERVICES[service]["environment"].items()})


def port_of(service):
    """The port that a service's health-check asks."""
    (port,) = re.findall(r"127\.0\.0\.1(?:', |:)(\d+)", " ".join(SERVICES[service]["healthcheck"]["test"]))
    return int(port)


@each("service", [*USERS, "definitions"])
def test_a_service_starts_with_its_environment(service):
    settings_of(service)


@each(("service", "user"), USERS.items())
def test_a_service_has_the_user_of_its_role_in_the_maps_vhost(service, user):
    url = urlsplit(settings_of(service).broker_url.get_secret_value())

    assert (url.username, url.hostname, url.port) == (user, "rabbitmq", 5672)
    assert url.path == "/" + deploy.load("deploy/rabbitmq/definitions.json")["vhosts"][0]["name"]
    assert url.password == f"rabbitmq_{user}_password"


def test_the_definitions_have_every_role_and_no_more():
    made = definitions.definitions(
        topology.broker_map(settings_of("definitions")), settings_of("definitions"), users=True
    )

    assert {user["name"] for user in made["users"]} == {role.name for role in definitions.ROLES}
    assert made["queues"] == deploy.load("deploy/rabbitmq/definitions.json")["queues"]


def test_who_publishes_signs_and_encrypts_with_the_same_keys():
    given = {"DISPATCH_MESSAGE_KEYS": f"2026a:{'k' * 32}", "DISPATCH_ENCRYPTION_KEYS": "A" * 43 + "="}
    services = deploy.compose(DISPATCH_API_KEYS=KEYS, **given)["services"]
    having = {keys: {name for name, service in services.items() if keys in str(service)} for keys in given.values()}

    assert having == {keys: {"gateway", "worker"} for keys in given.values()}


def test_only_the_admin_and_the_definitions_have_the_admins_password():
    knowing = {name for name, service in SERVICES.items() if "rabbitmq_admin_password" in str(service)}

    assert knowing == {"admin", "definitions"}


def test_the_workers_redrive_with_the_replay_user_and_figures_come_from_the_monitor():
    worker = settings_of("worker")

    assert urlsplit(worker.broker("replay")).username == "replay"
    for service in ("gateway", "worker", "flower"):
        assert urlsplit(settings_of(service).management_url.get_secret_value()).username == "monitor"


@each("service", ["gateway", "worker"])
def test_least_privilege_users_do_not_try_to_declare(service):
    assert settings_of(service).apply_topology is False


def test_every_secret_is_asked_for_by_the_example_and_has_no_value():
    lines = (deploy.ROOT / ".env.example").read_text().splitlines()
    asked = {line.removesuffix("=") for line in lines if re.fullmatch(r"\w+=", line)}

    assert asked == {name for name, (kind, _) in deploy.variables().items() if kind == "?"}


def test_every_optional_variable_is_in_the_example_with_its_default():
    shown = dict(re.findall(r"^#(\w+)=(.*)$", (deploy.ROOT / ".env.example").read_text(), re.MULTILINE))

    assert shown == {name: text for name, (kind, text) in deploy.variables().items() if kind == "-"}


def test_no_variable_may_be_empty_unnoticed():
    assert {kind for kind, _ in deploy.variables().values()} == {"?", "-"}


def test_env_files_with_secrets_are_never_committed():
    assert "/.env" in (deploy.ROOT / ".gitignore").read_text().splitlines()


def test_everything_is_published_on_loopback_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert len(ports) == 6
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


@each("service", SERVICES)
def test_an_image_is_pinned_to_a_release(service):
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-[a-z]+)?", SERVICES[service]["image"])


def test_our_images_tag_is_our_version():
    version = tomllib.loads((deploy.ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert {service["image"] for service in SERVICES.values() if "build" in service} == {f"robot-dispatch:{version}"}


@each("service", SERVICES)
def test_a_service_is_confined(service):
    what = SERVICES[service]
    limits = what["deploy"]["resources"]["limits"]

    assert what["security_opt"] == ["no-new-privileges:true"]
    assert what["cap_drop"] == ["ALL"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert what["logging"]["options"]["max-size"]
    assert what["read_only"] is True
    assert what["restart"] == ("no" if service in {"definitions", "admin"} else "unless-stopped")


@each("service", sorted(SERVICES.keys() - WITHOUT_HEALTH))
def test_a_service_has_a_health_check(service):
    assert {"test", "interval", "timeout", "retries"} <= SERVICES[service]["healthcheck"].keys()


def test_nothing_waits_for_the_health_of_a_service_without_a_check():
    waits = [
        (other, on["condition"]) for service in SERVICES.values() for other, on in service.get("depends_on", {}).items()
    ]

    assert {other for other, condition in waits if condition == "service_healthy"}.isdisjoint(WITHOUT_HEALTH)
    assert [other for other, condition in waits if condition != "service_healthy"] == ["definitions"]


@each("service", ["gateway", "worker"])
def test_gateway_and_worker_start_when_both_servers_are_healthy_and_need_no_collector(service):
    assert SERVICES[service]["depends_on"].keys() == {"rabbitmq", "redis"}


def test_every_mounted_file_is_there_and_read_only():
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, mode = volume.split(":")[0], volume.split(":")[1], volume.split(":")[2:]
            if source.startswith("."):
                assert (deploy.ROOT / source).exists(), source
                assert mode == ["ro"], volume
            else:
                assert source in COMPOSE["volumes"]


def test_services_that_connect_share_a_network():
    def networks(service):
        return set(SERVICES[service]["networks"])

    assert networks("flower") & networks("rabbitmq")
    for service in ("gateway", "worker"):
        assert all(
            networks(service) & networks(other) for other in ("rabbitmq", "redis", "otel-collector", "prometheus")
        )
    assert not networks("redis") & networks("grafana")


def test_the_ports_agree():
    scraped = {
        job["job_name"]: job["dns_sd_configs"][0]["port"]
        for job in deploy.load("deploy/prometheus/prometheus.yml")["scrape_configs"]
        if "dns_sd_configs" in job
    }

    assert port_of("gateway") == settings_of("gateway").http_port == scraped["gateway"]
    assert port_of("worker") == settings_of("worker").worker_metrics_port == scraped["worker"]
    assert port_of("flower") == settings_of("flower").flower_port
    assert f"127.0.0.1:{port_of('gateway')}:8080" in SERVICES["gateway"]["ports"]
    assert SERVICES["simulator"]["command"][-3] == str(urlsplit(settings_of("worker").robot_api_url).port)


def test_every_scraped_name_is_a_service_on_prometheus_network():
    config = deploy.load("deploy/prometheus/prometheus.yml")
    named = [name for job in config["scrape_configs"] for sd in job.get("dns_sd_configs", []) for name in sd["names"]]
    fixed = [
        target.partition(":")[0]
        for job in config["scrape_configs"]
        for static in job.get("static_configs", [])
        for target in static["targets"]
    ]

    assert {*named, *fixed} == {"gateway", "worker", "rabbitmq", "otel-collector", "127.0.0.1"}
    assert all("observe" in SERVICES[name]["networks"] for name in {*named, *fixed} - {"127.0.0.1"})


def test_no_task_may_call_anything_by_default():
    assert settings_of("worker").http_allowed_hosts == ()


def test_the_workers_processes_are_the_settings():
    settings = settings_of("worker")

    assert f"--autoscale={settings.concurrency_max},{settings.concurrency_min} " in SERVICES["worker"]["command"][-1]
    assert SERVICES["worker"]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"


def test_a_stop_leaves_time_to_finish():
    def grace(service):
        return int(SERVICES[service]["stop_grace_period"].removesuffix("s"))

    text = (deploy.ROOT / "dispatch" / "gateway" / "gunicorn_conf.py").read_text()
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)$", text, re.MULTILINE)

    assert grace("worker") >= settings_of("worker").soft_shutdown + 10
    assert grace("gateway") > int(graceful)


def test_rabbitmqs_configuration_has_its_containers_memory():
    (known,) = re.findall(
        r"^total_memory_available_override_value = (\d+)$",
        (deploy.DEPLOY / "rabbitmq" / "container.conf").read_text(),
        re.MULTILINE,
    )

    assert SERVICES["rabbitmq"]["deploy"]["resources"]["limits"]["memory"] == f"{int(known) / 2**30:g}G"


def test_rabbitmq_loads_what_the_definitions_service_writes():
    conf = (deploy.DEPLOY / "rabbitmq" / "rabbitmq.conf").read_text()
    (path,) = re.findall(r"^load_definitions = (.+)/definitions\.json$", conf, re.MULTILINE)

    assert f"definitions:{path}:ro" in SERVICES["rabbitmq"]["volumes"]
    (written,) = SERVICES["definitions"]["volumes"]
    assert f"cd {written.split(':')[1]} && " in SERVICES["definitions"]["command"][-1]
    assert "mv .new definitions.json" in SERVICES["definitions"]["command"][-1]


def test_rabbitmq_has_the_plugins_that_are_asked():
    assert (
        deploy.DEPLOY / "rabbitmq" / "enabled_plugins"
    ).read_text() == "[rabbitmq_management,rabbitmq_prometheus].\n"


def test_redis_keeps_records_below_its_containers_memory():
    conf = dict(
        line.split(maxsplit=1)
        for line in (deploy.DEPLOY / "redis" / "redis.conf").read_text().splitlines()
        if line and not line.startswith("#")
    )
    limit = SERVICES["redis"]["deploy"]["resources"]["limits"]["memory"]

    assert conf["maxmemory-policy"] == "noeviction"
    assert conf["appendonly"] == "yes"
    # A rewrite of the append-only file is a fork: what changes meanwhile is there twice.
    assert int(conf["maxmemory"].removesuffix("mb")) * 2 <= int(limit.removesuffix("M"))


def test_flower_shows_no_buttons_unless_configured():
    assert "--read_only=true" in SERVICES["flower"]["command"]
    assert "--read_only=false" in deploy.compose(FLOWER_READ_ONLY="false")["services"]["flower"]["command"]
