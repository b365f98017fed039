"""Every metric in a rule or a dashboard is in a real ``/metrics``, and a real Prometheus answers every query."""

import contextlib
import json
import shutil
import subprocess

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from launcher.ports import Ports
from support import deploy, uncontained
from support.waiting import eventually

#: Queries that are empty while nothing of the kind has happened.
QUIET = ("ALERTS",)

#: The type of a task and its payload: one that succeeds, one that fails for good, one that is tried again, one refused.
GOOD = ("echo", {"message": "hello"})
DEAD = ("http.request", {"method": "GET", "url": "http://example.invalid/"})
RETRIED = ("http.request", {"method": "GET", "url": f"http://{uncontained.UNREACHABLE}/"})
REFUSED = ("no-such-type", {})


@pytest.fixture(scope="module")
def system():
    with uncontained.running() as found:
        yield found


@pytest.fixture(scope="module")
def api(system):
    """A client of a gateway that has seen one task of each kind."""
    headers = {"Authorization": f"Bearer {system.key}"}
    base_url = f"http://127.0.0.1:{system.port['gateway']}"
    with httpx.Client(base_url=base_url, headers=headers, timeout=10, trust_env=False) as client:
        for task in (REFUSED, RETRIED):
            send(client, task)
        for task in (GOOD, DEAD):
            url = send(client, task).json()["statusUrl"]
            eventually(lambda url=url: client.get(url).json()["status"] in {"SUCCESS", "FAIL"}, 30, "the task ends")
        yield client


def send(client, task):
    return client.post("/v1/tasks", json={"type": task[0], "payload": task[1]})


def scrape(system, service):
    answer = httpx.get(f"http://127.0.0.1:{system.port[service]}/metrics", timeout=10, trust_env=False)
    answer.raise_for_status()
    return answer.text


@pytest.fixture(scope="module")
def scraped(system, api):
    eventually(lambda: api.get("/readyz").is_success, 20, lambda: system.log("gateway")[-3_000:])
    return {service: scrape(system, service) for service in ("gateway", "worker")}


@pytest.fixture(scope="module")
def families(scraped):
    return [family for text in scraped.values() for family in text_string_to_metric_families(text)]


def names(families):
    """What PromQL may ask for."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, ("",))}


def test_every_metric_in_a_rule_or_a_dashboard_is_scraped(families):
    queries = [*deploy.queries(), *(rule["expr"] for rule in deploy.rules())]
    used = {name for query in queries for name in deploy.METRIC.findall(query)}

    assert used - names(families) == set()


def test_the_labels_are_the_agreed_ones(families):
    wrong = {
        sample.name: set(sample.labels)
        for family in families
        for sample in family.samples
        if (agreed := deploy.METRICS.get(sample.name.removesuffix("_bucket"))) is not None
        and set(sample.labels) - {"le"} != agreed
    }

    assert wrong == {}


def test_the_routes_in_the_rules_are_routes(families):
    routes = {sample.labels["route"] for family in families for sample in family.samples if "route" in sample.labels}

    assert {"/v1/tasks", "/v1/tasks/{taskId}"} <= routes


@pytest.mark.parametrize("limit", [0.3, 0.8, 1.0])
def test_the_objectives_are_limits_of_buckets(families, limit):
    limits = {
        float(sample.labels["le"])
        for family in families
        if family.name == "robot_http_request_duration_seconds"
        for sample in family.samples
        if sample.name.endswith("_bucket")
    }

    assert limit in limits  # a quantile between two limits is a guess


@pytest.mark.parametrize("service", ["gateway", "worker"])
def test_names_and_help_are_as_prometheus_requires_them(scraped, service):
    tool = shutil.which("promtool")
    assert tool, "promtool is missing: scripts/setup-promtool.sh installs it"

    done = subprocess.run(
        [tool, "check", "metrics"], input=scraped[service], capture_output=True, text=True, timeout=20, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture(scope="module")
def prometheus(system, tmp_path_factory):
    """A client of a real Prometheus, with the shipped configuration at other addresses and a faster pace."""
    directory = tmp_path_factory.mktemp("prometheus")
    ports = Ports(directory / "ports.json")
    port = ports.claim("prometheus")
    config = deploy.load("deploy/prometheus/prometheus.yml")
    targets = {"gateway": system.port["gateway"], "worker": system.port["worker"], "rabbitmq": system.port["metrics"]}
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]}
        for job in config["scrape_configs"]
        if job["job_name"] in targets
    ]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    (directory / "rules").mkdir()
    for file in (deploy.DEPLOY / "prometheus" / "rules").glob("*.yml"):
        (directory / "rules" / file.name).write_text(file.read_text().replace("interval: 5m", "interval: 1s"))
    program = shutil.which("prometheus")
    assert program, "prometheus is missing: scripts/setup-promtool.sh installs it"
    command = [program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=output, stderr=output, cwd=directory
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            eventually(lambda: up(client) == 3, 30, lambda: (directory / "log").read_text()[-2_000:])
            yield client
    finally:
        process.kill()
        process.wait()
        ports.close()


def ask(client, query):
    """The series that a query gives, by a real evaluation."""
    answer = client.get("/api/v1/query", params={"query": query})
    assert answer.is_success, f"{query}: {answer.text}"
    return answer.json()["data"]["result"]


def up(client):
    with contextlib.suppress(httpx.TransportError, AssertionError):
        return len(ask(client, "up == 1"))
    return 0


def test_every_dashboard_query_shows_something(prometheus, api):
    empty = []

    def all_answer():
        send(api, GOOD)  # what happened before the first scrape has no rate
        loud = [query for query in deploy.queries() if not any(name in query for name in QUIET)]
        empty[:] = [query for query in loud if not ask(prometheus, query)]
        return not empty

    eventually(all_answer, 45, lambda: json.dumps(empty, indent=1), interval=0.5)


def test_every_rule_is_evaluated_without_an_error(prometheus):
    def groups():
        return prometheus.get("/api/v1/rules").json()["data"]["groups"]

    eventually(lambda: all(rule["health"] == "ok" for group in groups() for rule in group["rules"]), 30, "rules are ok")
    alerts = prometheus.get("/api/v1/alerts").json()["data"]["alerts"]

    assert [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"] == []
