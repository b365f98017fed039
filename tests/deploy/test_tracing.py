"""Collector and Jaeger: every pipeline is made of parts that are there, and leads on to the next service."""

from urllib.parse import urlsplit

from support import deploy
from support.cases import each

SERVICES = deploy.compose()["services"]
COLLECTOR = deploy.load("deploy/otel-collector/config.yaml")
JAEGER = deploy.load("deploy/jaeger/config.yaml")


def port(endpoint):
    return int(endpoint.rpartition(":")[2])


@each("config", [COLLECTOR, JAEGER], ids=["collector", "jaeger"])
def test_pipelines_use_every_part_and_no_other(config):
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == config[kind].keys()
    assert set(config["service"]["extensions"]) == config["extensions"].keys()


@each("service", ["gateway", "worker"])
def test_spans_go_to_a_receiver_of_the_collector(service):
    environ = SERVICES[service]["environment"]
    endpoint = urlsplit(environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    protocols = COLLECTOR["receivers"]["otlp"]["protocols"]

    assert endpoint.hostname == "otel-collector"
    assert endpoint.port == port(protocols["http"]["endpoint"])
    assert environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert environ["OTEL_TRACES_EXPORTER"] == "otlp"


def test_the_two_have_names_of_their_own():
    names = [SERVICES[service]["environment"]["OTEL_SERVICE_NAME"] for service in ("gateway", "worker")]

    assert names == ["robot-gateway", "robot-worker"]


def test_the_collector_sends_to_jaegers_receiver():
    endpoint = COLLECTOR["exporters"]["otlp/jaeger"]["endpoint"]

    assert endpoint.partition(":")[0] in SERVICES
    assert port(endpoint) == port(JAEGER["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])


def test_jaegers_health_check_asks_where_it_answers():
    asked = SERVICES["jaeger"]["healthcheck"]["test"][-1]

    assert urlsplit(asked).port == port(JAEGER["extensions"]["healthcheckv2"]["http"]["endpoint"])


def test_the_collectors_own_metrics_are_scraped():
    reader = COLLECTOR["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    jobs = {job["job_name"]: job for job in deploy.load("deploy/prometheus/prometheus.yml")["scrape_configs"]}

    assert jobs["otel-collector"]["static_configs"][0]["targets"] == [f"otel-collector:{reader['port']}"]


def test_memory_is_refused_before_the_container_is_killed():
    limit = int(SERVICES["otel-collector"]["deploy"]["resources"]["limits"]["memory"].removesuffix("M"))

    assert COLLECTOR["processors"]["memory_limiter"]["limit_mib"] < limit
    assert COLLECTOR["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"


def test_the_links_in_the_api_lead_to_jaegers_published_port():
    link = urlsplit(SERVICES["gateway"]["environment"]["DISPATCH_TRACE_URL"])

    assert f"{link.hostname}:{link.port}:16686" in SERVICES["jaeger"]["ports"]
    assert link.path == "/trace/{traceId}"
