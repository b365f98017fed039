"""The Helm chart renders with every values file to what Kubernetes and the operators take, and to the manifests of the repository."""

import json
import re
import tomllib

import jsonschema
import yaml

from support import chart as charts
from support import deploy
from support.cases import each
from tools import chart


@each("variant", charts.VARIANTS)
def test_every_object_is_one_that_kubernetes_takes(variant):
    objects = charts.rendered(variant)

    for document in objects:
        charts.check(document)
    assert len({(document["kind"], document["metadata"]["name"]) for document in objects}) == len(objects)


@each(("path", "value"), [("spec.replica", 1), ("spec.template.spec.hostNetwrk", True), ("spec.strategy.type", 3)])
def test_the_check_finds_a_field_that_does_not_exist_or_has_another_type(path, value):
    document = json.loads(json.dumps(charts.named(charts.rendered(), "Deployment", "gateway")))
    *places, last = path.split(".")
    inner = document
    for place in places:
        inner = inner[place]
    inner[last] = value

    assert _refused(document)


@each(
    ("kind", "name", "change"),
    [
        ("ScaledObject", "worker-default", {"minReplicas": 1}),
        ("ScaledObject", "worker-default", {"triggers": [{"type": "rabbitmq", "metadata": {"queue": "x"}}]}),
        ("RabbitmqCluster", "rabbitmq", {"storage": "1Gi"}),
        ("User", "rabbitmq-gateway", {"password": "x"}),
        ("Permission", "rabbitmq-gateway", {"user": "gateway"}),
    ],
)
def test_the_check_finds_what_an_operator_would_not_know(kind, name, change):
    document = charts.named(charts.rendered(), kind, name)

    assert _refused({**document, "spec": {**document["spec"], **change}})


def _refused(document):
    try:
        charts.check(document)
    except jsonschema.ValidationError:
        return True
    return False


def test_the_plain_manifests_are_what_the_chart_renders():
    found = {path.name: path.read_text() for path in chart.MANIFESTS.glob("*.yaml")}

    assert found == chart.manifests(), "run `python -m tools.chart`"


def test_the_plain_manifests_lose_no_object():
    plain = [
        document
        for path in sorted(chart.MANIFESTS.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]

    def key(document):
        return document["kind"], document["metadata"]["name"]

    assert sorted(map(key, plain)) == sorted(map(key, charts.rendered()))


def test_the_versions_are_the_packages():
    version = tomllib.loads((deploy.ROOT / "pyproject.toml").read_text())["project"]["version"]
    found = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())

    assert (found["version"], found["appVersion"]) == (version, version)


@each("release", ["a", "dispatch", "my-robot-dispatch", "r" * 53])
def test_a_release_may_have_any_name(release):
    pool = ("--set", "workers.pools.abcdefghijklmnop.threads=1")
    done = chart.run("template", release, str(chart.CHART), *pool)
    objects = [each for each in yaml.safe_load_all(done.stdout) if each]

    assert done.returncode == 0, done.stderr
    for document in objects:
        charts.check(document)
        names = [document["metadata"]["name"], *document["metadata"]["labels"].values()]
        assert all(len(name) <= 63 for name in names), names
    for scaler in charts.of_kind(objects, "ScaledObject"):
        assert len(f"keda-hpa-{scaler['metadata']['name']}") <= 63


def test_the_values_of_the_guide_are_taken(tmp_path):
    guide = charts.repository("docs/how-to/deploy-on-kubernetes.md")
    (first,) = re.findall(r"^cat > values.yaml <<'END'\n(.+?)^END$", guide, re.MULTILINE | re.DOTALL)
    (lanes,) = re.findall(r"^```yaml\n(.+?)^```$", guide, re.MULTILINE | re.DOTALL)
    for number, text in enumerate((first, lanes)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        objects = charts.rendered("default", "--values", str(path))

        for document in objects:
            charts.check(document)
        for value in re.findall(r"`((?:\w+\.)+\w+)(?:: \S+)?`", guide):
            assert _is_value(value), value


def _is_value(path):
    """Whether a dotted name is a value of the chart, or another thing with a dot."""
    inner = deploy.load("deploy/helm/robot-dispatch/values.yaml")
    first, *rest = path.split(".")
    if first not in inner:
        return True
    inner = inner[first]
    for name in rest:
        if name not in inner:
            return False
        inner = inner[name]
    return True


def test_helm_is_pinned_by_version_and_hash():
    script = charts.repository("scripts/setup-helm.sh")

    assert re.search(r"==\d+\.\d+\.\d+ --hash=sha256:[0-9a-f]{64}\b", script)
    assert "--require-hashes" in script
    assert "--no-deps" in script


@each("variant", charts.VARIANTS)
def test_helms_own_linter_has_no_objection(variant):
    done = chart.run("lint", "--strict", str(chart.CHART), *charts.VARIANTS[variant])

    assert done.returncode == 0, done.stdout


def test_the_notes_name_what_is_to_be_done_next():
    first = chart.notes()
    held = chart.notes("--set", "gateway.paused=true")

    assert "job/robot-dispatch-topology" in first
    assert "rollout status" in held


def job(*options, variant="default"):
    (found,) = charts.of_kind(charts.rendered(variant, *options), "Job")
    return found


def test_the_map_is_applied_before_an_upgrade_and_before_an_install_on_servers_that_are_there():
    for found in (job("--is-upgrade"), job(variant="external"), job("--is-upgrade", variant="external")):
        assert found["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert "before-hook-creation" in found["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert found["metadata"]["name"] == "robot-dispatch-topology-1"  # a finished job can't be changed
        assert "serviceAccountName" not in found["spec"]["template"]["spec"]  # a hook's time is before the release's


def test_the_map_is_applied_beside_the_rest_when_the_release_brings_rabbitmq():
    found = job()

    assert "annotations" not in found["metadata"]
    assert found["spec"]["activeDeadlineSeconds"] >= 1_200  # three nodes with new disks, one after the other
    assert found["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"


def test_gateways_can_wait_for_the_workers_of_a_new_version():
    gateway = charts.named(charts.rendered("default", "--set", "gateway.paused=true"), "Deployment", "gateway")
    worker = charts.named(charts.rendered("default", "--set", "gateway.paused=true"), "Deployment", "worker-default")

    assert gateway["spec"]["paused"] is True
    assert "paused" not in worker["spec"]


def test_what_holds_tasks_stays_when_the_release_is_uninstalled():
    operated = [each for each in charts.rendered() if each["apiVersion"].startswith("rabbitmq.com/")]
    redis = charts.named(charts.rendered(), "StatefulSet", "redis")["spec"]

    assert {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in operated} == {"keep"}
    assert redis["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_external_servers_are_not_created():
    assert not charts.of_kind(charts.rendered("external"), "RabbitmqCluster", "StatefulSet", "User", "Permission")


@each("variant", charts.VARIANTS)
def test_selectors_and_references_find_what_they_mean(variant):
    objects = charts.rendered(variant)
    templates = charts.pods(objects)
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}

    for name, template in templates.items():
        (own,) = [each for each in objects if each["metadata"]["name"] == name and "template" in each.get("spec", {})]
        wanted = own["spec"].get("selector", {}).get("matchLabels", {})
        assert wanted.items() <= template["metadata"]["labels"].items(), name
    for service in charts.of_kind(objects, "Service"):
        (target,) = _selected(templates, service["spec"]["selector"])
        ports = {port["name"] for port in charts.containers(objects)[target]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for scaler in charts.of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        assert ("Deployment", scaler["spec"]["scaleTargetRef"]["name"]) in names
    for scaler in charts.of_kind(objects, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            if "authenticationRef" in trigger:
                assert ("TriggerAuthentication", trigger["authenticationRef"]["name"]) in names
    for backend in re.findall(r"'service': {'name': '([^']+)'", str(charts.of_kind(objects, "Ingress"))):
        assert ("Service", backend) in names


def _selected(templates, wanted):
    return [name for name, each in templates.items() if wanted.items() <= each["metadata"]["labels"].items()]


@each("variant", charts.VARIANTS)
def test_what_scales_by_itself_has_no_number_of_replicas_of_its_own(variant):
    objects = charts.rendered(variant)
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]
        for each in charts.of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    }

    for deployment in charts.of_kind(objects, "Deployment"):
        assert ("replicas" in deployment["spec"]) is (deployment["metadata"]["name"] not in scaled)


def test_replicas_are_fixed_where_nothing_scales():
    deployments = charts.of_kind(charts.rendered("fixed"), "Deployment")

    assert {each["metadata"]["name"]: each["spec"]["replicas"] for each in deployments} == {
        "robot-dispatch-gateway": 3, "robot-dispatch-worker-default": 4, "robot-dispatch-flower": 1,
    }  # fmt: skip
    assert not charts.of_kind(
        charts.rendered("fixed"), "HorizontalPodAutoscaler", "ScaledObject", "TriggerAuthentication", "NetworkPolicy"
    )


#: The further queues of the default lane in the variant `lanes`.
SHARDED = ["robot.task.q.shard.1", "robot.task.q.shard.2"]


def test_each_shard_of_a_lane_asks_for_the_replicas_of_all_of_them():
    values = {each["metadata"].get("queueName"): each["metadata"].get("value") for each in triggers("lanes", "robots")}

    assert values == {"robot.task.q": "13", **dict.fromkeys(SHARDED, "13"), "robot.task.q.robots": "40"}
    assert charts.refusal("--set", "shards=65")


def triggers(variant, pool):
    return charts.named(charts.rendered(variant), "ScaledObject", f"worker-{pool}")["spec"]["triggers"]


def test_a_pool_scales_by_the_queues_that_it_consumes():
    def queues(pool):
        return [each["metadata"]["queueName"] for each in triggers("lanes", pool) if each["type"] == "rabbitmq"]

    assert queues("bulk") == ["robot.task.q.bulk"]
    assert sorted(queues("robots")) == ["robot.task.q", "robot.task.q.robots", *SHARDED]
    assert [each["metadata"]["queueName"] for each in triggers("default", "default")[:1]] == ["robot.task.q"]


def test_what_takes_a_pool_from_zero_is_counted_by_rabbitmq_and_includes_what_runs():
    for pool in ("bulk", "robots"):
        scaler = charts.named(charts.rendered("lanes"), "ScaledObject", f"worker-{pool}")["spec"]

        assert scaler["minReplicaCount"] == 0
        for trigger in scaler["triggers"]:
            assert trigger["type"] == "rabbitmq"  # a worker's own metrics are not there without workers
            assert trigger["metadata"]["protocol"] == "http"
            assert trigger["metadata"]["excludeUnacknowledged"] == "false"
            assert trigger["metadata"]["activationValue"] == "0"


def test_keda_reads_as_the_user_that_may_only_look():
    (found,) = charts.of_kind(charts.rendered(), "TriggerAuthentication")

    assert {each["name"] for each in found["spec"]["secretTargetRef"]} == {"robot-dispatch-rabbitmq-monitor"}


def test_an_outage_of_the_figures_takes_no_worker_away_and_leaves_none_at_zero():
    for pool, replicas in (("bulk", 1), ("default", 1)):
        fallback = charts.named(charts.rendered("lanes"), "ScaledObject", f"worker-{pool}")["spec"]["fallback"]

        assert (fallback["behavior"], fallback["replicas"]) == ("currentReplicasIfHigher", replicas)


def test_the_age_of_the_oldest_task_is_a_metric_that_there_is_and_only_of_a_pool_that_consumes_all():
    (age,) = [each for each in triggers("default", "default") if each["type"] == "prometheus"]
    (metric,) = deploy.METRIC.findall(age["metadata"]["query"])
    (queue,) = re.findall(r'queue="([^"]+)"', age["metadata"]["query"])

    assert "queue" in deploy.METRICS[metric]
    assert queue == "robot.task.q"
    assert all(each["type"] == "rabbitmq" for pool in ("default", "bulk") for each in triggers("lanes", pool))


def test_some_pool_always_has_a_worker_for_maintenance():
    refused = charts.refusal("--set", "workers.defaults.autoscaling.minReplicas=0")

    assert "one pool must always have a replica" in refused
    assert not charts.refusal(
        "--set", "workers.defaults.autoscaling.minReplicas=0,workers.pools.default.autoscaling.minReplicas=1"
    )
