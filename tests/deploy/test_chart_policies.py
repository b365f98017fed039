"""What every pod of the chart must be: a rule a test, for every values file."""

import re

import pytest

from support import chart as charts
from support.cases import each

POOLS = {"lanes": ("default", "bulk", "robots")}

RABBITMQ = {"app.kubernetes.io/name": "robot-dispatch-rabbitmq"}

every_variant = each("variant", charts.VARIANTS)


def templates(variant):
    return charts.pods(charts.rendered(variant)).items()


@every_variant
def test_no_pod_runs_as_root_or_may_become_it(variant):
    for name, template in templates(variant):
        pod, (container,) = template["spec"], template["spec"]["containers"]

        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] >= 999, name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert not {"privileged", "runAsUser"} & container["securityContext"].keys(), name


@every_variant
def test_every_pod_has_the_runtimes_seccomp_profile(variant):
    for name, template in templates(variant):
        assert template["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name


@every_variant
def test_every_root_file_system_is_read_only_and_what_is_written_is_bounded(variant):
    for name, template in templates(variant):
        (container,) = template["spec"]["containers"]
        scratch = [each["emptyDir"] for each in template["spec"]["volumes"] if "emptyDir" in each]

        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert "/tmp" in {each["mountPath"] for each in container["volumeMounts"]}, name
        assert all("sizeLimit" in each for each in scratch), name
        assert all(each["readOnly"] for each in container["volumeMounts"] if each["mountPath"].startswith("/etc/")), (
            name
        )


@every_variant
def test_the_image_user_is_the_pods(variant):
    (user,) = re.findall(r"^USER (\d+):\d+$", charts.repository("Dockerfile"), re.MULTILINE)
    for name, template in templates(variant):
        if template["spec"]["containers"][0]["name"] != "redis":
            assert template["spec"]["securityContext"]["runAsUser"] == int(user), name


@every_variant
def test_no_pod_has_a_token_of_the_kubernetes_api_or_shares_anything_of_its_node(variant):
    for name, template in templates(variant):
        assert template["spec"]["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & template["spec"].keys(), name
        assert not [each for each in template["spec"]["volumes"] if "hostPath" in each], name
    (account,) = charts.of_kind(charts.rendered(variant), "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert not charts.of_kind(charts.rendered(variant), "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


@every_variant
def test_no_variable_is_made_of_a_services_name(variant):
    for name, template in templates(variant):
        assert template["spec"]["enableServiceLinks"] is False, name


@every_variant
def test_every_container_has_requests_and_limits(variant):
    for name, container in charts.containers(charts.rendered(variant)).items():
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys(), name
    for cluster in charts.of_kind(charts.rendered(variant), "RabbitmqCluster"):
        resources = cluster["spec"]["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]  # its watermark is a share of it


@every_variant
def test_everything_that_serves_has_three_probes_with_a_port_that_it_has(variant):
    for name, container in charts.containers(charts.rendered(variant)).items():
        if container["name"] == "topology":
            continue
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe].get("httpGet") or container[probe].get("tcpSocket")
            assert asked is None or asked["port"] in ports, (name, probe)
            assert asked or container[probe]["exec"], (name, probe)


def test_the_probes_ask_what_the_gateway_and_the_worker_serve():
    found = charts.containers(charts.rendered())
    gateway, worker = found["robot-dispatch-gateway"], found["robot-dispatch-worker-default"]

    assert gateway["livenessProbe"]["httpGet"]["path"] == "/livez"  # contacts no server: an outage kills nothing
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert gateway["ports"][0]["containerPort"] == int(charts.variables(gateway)["DISPATCH_HTTP_PORT"])
    assert worker["livenessProbe"]["httpGet"]["path"] == "/metrics"
    assert worker["ports"][0]["containerPort"] == int(charts.variables(worker)["DISPATCH_WORKER_METRICS_PORT"])


def test_a_gateway_that_wants_client_certificates_is_probed_without_one():
    gateway = charts.containers(charts.rendered("tls"))["robot-dispatch-gateway"]
    https = charts.containers(charts.rendered("default", "--set", "gateway.tls.secret=x"))["robot-dispatch-gateway"]

    assert "tcpSocket" in gateway["livenessProbe"]
    assert https["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"


@every_variant
def test_a_node_may_be_drained_and_takes_one_pod_of_each_at_a_time(variant):
    objects = charts.rendered(variant)
    budgets = {each["metadata"]["name"]: each["spec"] for each in charts.of_kind(objects, "PodDisruptionBudget")}
    pools = [f"worker-{pool}" for pool in POOLS.get(variant, ("default",))]

    for name in ("gateway", *pools):
        budget = budgets[f"robot-dispatch-{name}"]
        labels = dict(templates(variant))[f"robot-dispatch-{name}"]["metadata"]["labels"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
    if charts.of_kind(objects, "RabbitmqCluster"):
        assert budgets["robot-dispatch-rabbitmq"]["selector"]["matchLabels"] == RABBITMQ


@every_variant
def test_a_roll_out_never_takes_a_pod_before_its_successor_is_there(variant):
    for deployment in charts.of_kind(charts.rendered(variant), "Deployment"):
        strategy = deployment["spec"]["strategy"]
        if deployment["metadata"]["name"].endswith("flower"):
            assert strategy == {"type": "Recreate"}  # its volume has one writer
        else:
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0


@every_variant
def test_every_image_is_of_a_release_or_a_digest(variant):
    objects = charts.rendered(variant)
    images = {each["image"] for each in charts.containers(objects).values()}
    images |= {each["spec"]["image"] for each in charts.of_kind(objects, "RabbitmqCluster")}

    for image in images:
        assert re.search(r"(:v?\d+\.\d+\.\d+(-[a-z]+)?|@sha256:[0-9a-f]{64})$", image), image


def test_the_servers_are_the_compose_files():
    found = charts.repository("docker-compose.yml")

    assert charts.containers(charts.rendered())["robot-dispatch-redis"]["image"] in found
    assert charts.named(charts.rendered(), "RabbitmqCluster", "rabbitmq")["spec"]["image"] in found


@every_variant
def test_no_secret_is_created_or_is_a_value(variant):
    objects = charts.rendered(variant)

    assert not charts.of_kind(objects, "Secret")
    for container in charts.containers(objects).values():
        for variable in container["env"]:
            if re.search(r"(PASSWORD|PEPPER|_KEYS$|SECRET|BASIC_AUTH|USERNAME|_AUTH$)", variable["name"]):
                assert variable["valueFrom"].keys() == {"secretKeyRef"}, variable["name"]
    for text in re.findall(r"://[^'\"\s;@]*@", str(objects)):
        assert re.fullmatch(r"://\$\(\w+_USERNAME\):\$\(\w+_PASSWORD\)@", text), text


@every_variant
def test_secrets_are_mounted_without_rights_for_others(variant):
    for name, template in templates(variant):
        for volume in template["spec"]["volumes"]:
            if volume["name"] in {"api-keys", "tls"}:
                assert volume["secret"]["defaultMode"] == 0o440, name  # and fsGroup makes the group ours


# Network policies, as a table of who reaches whom.


def labels_of(component):
    """A pod's labels; None stands for a pod of this namespace that is none of ours."""
    if component == "rabbitmq":
        return RABBITMQ
    if component == "stranger":
        return {"app": "stranger"}
    found = dict(templates("default"))
    return found[f"robot-dispatch-{component}"]["metadata"]["labels"]


def matches(selector, labels):
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "NotIn"
        if labels.get(expression["key"]) in expression["values"]:
            return False
    return True


def allowed(direction, labels, other, port):
    """Whether the policies of a pod let traffic through in one direction (Kubernetes' rules: none that selects it is all)."""
    policies = [
        each["spec"]
        for each in charts.of_kind(charts.rendered(), "NetworkPolicy")
        if matches(each["spec"]["podSelector"], labels) and direction.title() in each["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    peers = "from" if direction == "ingress" else "to"
    return any(
        any(each["port"] == port for each in rule["ports"])
        and (peers not in rule or any(_is_peer(peer, other) for peer in rule[peers]))
        for policy in policies
        for rule in policy.get(direction, ())
    )


def _is_peer(peer, labels):
    return "podSelector" in peer and "namespaceSelector" not in peer and matches(peer["podSelector"], labels)


def reaches(source, target, port):
    one, other = labels_of(source), labels_of(target)
    return allowed("egress", one, other, port) and allowed("ingress", other, one, port)


@each(
    ("source", "target", "port"),
    [
        *(
            (each, "rabbitmq", port)
            for each in ("gateway", "worker-default", "flower", "topology")
            for port in (5672, 15672)
        ),
        ("gateway", "redis", 6379),
        ("worker-default", "redis", 6379),
        ("rabbitmq", "rabbitmq", 25672),
        ("rabbitmq", "rabbitmq", 4369),
        ("stranger", "gateway", 8080),
        ("stranger", "flower", 5555),
    ],
)
def test_what_is_needed_gets_through(source, target, port):
    assert reaches(source, target, port)


@each(
    ("source", "target", "port"),
    [
        ("stranger", "redis", 6379),
        ("stranger", "rabbitmq", 5672),
        ("stranger", "rabbitmq", 15672),
        ("stranger", "worker-default", 9464),
        ("flower", "redis", 6379),
        ("topology", "redis", 6379),
        ("redis", "rabbitmq", 5672),
        ("redis", "gateway", 8080),
        ("gateway", "worker-default", 9464),
        ("worker-default", "gateway", 8080),
        ("gateway", "flower", 5555),
        ("rabbitmq", "redis", 6379),
        ("gateway", "rabbitmq", 25672),
    ],
)
def test_nothing_else_gets_through(source, target, port):
    assert not reaches(source, target, port)


def test_who_needs_no_redis_may_not_even_try():
    for name in ("flower", "topology"):
        assert not allowed("egress", labels_of(name), labels_of("redis"), 6379)


def rules(name, direction, variant="default"):
    return charts.named(charts.rendered(variant), "NetworkPolicy", name)["spec"].get(direction, [])


def test_every_pod_of_ours_is_denied_what_no_policy_allows():
    for variant in set(charts.VARIANTS) - {"fixed"}:
        deny = charts.named(charts.rendered(variant), "NetworkPolicy", "default-deny")["spec"]

        assert deny["policyTypes"] == ["Ingress", "Egress"]
        assert not {"ingress", "egress"} & deny.keys()
        for _, template in templates(variant):
            assert matches(deny["podSelector"], template["metadata"]["labels"])


def test_handlers_reach_public_addresses_only():
    (rule,) = rules("workers", "egress")
    (block,) = [peer["ipBlock"] for peer in rule["to"]]

    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])
    assert {each["port"] for each in rule["ports"]} == {80, 443}


def test_metrics_are_for_the_namespace_of_prometheus():
    (rule,) = rules("workers", "ingress")

    assert [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]] == [
        {"kubernetes.io/metadata.name": "monitoring"}
    ]


def test_external_servers_are_reached_where_they_are():
    (_, broker, traces) = rules("processes", "egress", "external")
    (redis,) = rules("to-redis", "egress", "external")

    assert broker["to"] == redis["to"] == traces["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]
    assert {each["port"] for each in broker["ports"]} == {5672, 8672}
    assert {each["port"] for each in redis["ports"]} == {26379, 6379}
    assert {each["port"] for each in traces["ports"]} == {4318}


@pytest.mark.parametrize("variant", ["default", "tls"])
def test_rabbitmqs_ports_are_those_of_its_protocol(variant):
    ports = {each["port"] for rule in rules("rabbitmq", "ingress", variant) for each in rule["ports"]}

    assert ports == ({5671, 15671, 15691, 4369, 25672} if variant == "tls" else {5672, 15672, 15692, 4369, 25672})
