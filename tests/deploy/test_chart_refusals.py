"""Wrong values are refused before anything reaches a cluster, with a message that names them."""

import json

from support import chart as charts
from support.cases import each
from tools import chart

#: What is set, and what the message must have: the place and the problem.
WRONG = [
    ("gatewayz.replicas=2", "'gatewayz' not allowed"),
    ("gateway.replica=2", "'replica' not allowed"),
    ("gateway.replicas=0", "/gateway/replicas"),
    ("image.tag=latest", "/image/tag"),
    ("image.digest=sha256:abc", "/image/digest"),
    ("rabbitmq.image=rabbitmq:latest", "/rabbitmq/image"),
    ("rabbitmq.image=rabbitmq", "/rabbitmq/image"),
    ("rabbitmq.replicas=2", "/rabbitmq/replicas"),
    ("redis.image=redis:latest", "/redis/image"),
    ("settings.DISPATCH_LADER=1m=60", "'DISPATCH_LADER' not allowed"),
    ("settings.DISPATCH_API_KEYS=x", "'DISPATCH_API_KEYS' not allowed"),
    ("settings.DISPATCH_BROKER_URL=amqp://x", "'DISPATCH_BROKER_URL' not allowed"),
    ("settings.DISPATCH_MESSAGE_KEYS=x", "'DISPATCH_MESSAGE_KEYS' not allowed"),
    ("settings.DISPATCH_APPLY_TOPOLOGY=true", "'DISPATCH_APPLY_TOPOLOGY' not allowed"),
    ("gateway.settings.DISPATCH_SOFT_SHUTDOWN=1", "'DISPATCH_SOFT_SHUTDOWN' not allowed"),
    ("rabbitmq.password=x", "'password' not allowed"),
    ("rabbitmq.users.gateway=", "/rabbitmq/users/gateway"),
    ("redis.create=false", "/redis/external/hosts"),
    ("rabbitmq.create=false", "/rabbitmq/external/hosts"),
    ("redis.external.hosts={user:secret@redis.example:6379}", "/redis/external/hosts/0"),
    ("rabbitmq.external.hosts={amqp://rabbitmq.example}", "/rabbitmq/external/hosts/0"),
    ("otel.endpoint=http://user:secret@collector:4318", "/otel/endpoint"),
    ("otel.ratio=2", "/otel/ratio"),
    ("workers.defaults.pool=gevent", "/workers/defaults/pool"),
    ("workers.pools.default.min=1", "'min' not allowed"),
    ("workers.pools.Default.threads=1", "invalid propertyName 'Default'"),
    ("workers.softShutdownSeconds=-1", "/workers/softShutdownSeconds"),
    ("workers.defaults.resources.limits=null", "/workers/defaults/resources"),
    ("gateway.resources.limits.memory=lots", "/gateway/resources/limits/memory"),
    ("gateway.tls.clientCaSecret=x", "/gateway/tls/secret"),
    ("gateway.service.type=ExternalName", "/gateway/service/type"),
    ("lanes.default={echo}", "invalid propertyName 'default'"),
    ("lanes.bulk={*}", "/lanes/bulk/0"),
    ("lanes.bulk={}", "/lanes/bulk"),
    ("networkPolicy.clients={10.0.0.0/8}", "/networkPolicy/clients/0"),
    ("podAnnotations.x=1", "/podAnnotations/x"),
]

#: What no schema can compare.
CONTRADICTIONS = [
    ("workers.pools.default.lanes={bulk}", 'there is no lane "bulk"'),
    ("lanes.bulk={echo},workers.pools.default.lanes={default}", 'no pool consumes the lane "bulk"'),
    ("lanes.bulk={echo},workers.pools.default.lanes={bulk}", 'no pool consumes the lane "default"'),
    ("workers.pools.default.autoscaling.minReplicas=11", "minReplicas exceeds maxReplicas"),
    ("workers.pools.default.processes.min=9", "min exceeds max"),
    ("workers.pools.default.replicas=0,workers.pools.default.autoscaling.enabled=false", "must always have a replica"),
    ("gateway.ingress.enabled=true", "gateway.ingress.host: needed"),
    ("rabbitmq.tls.enabled=true", "rabbitmq.tls.secret: needed"),
]


@each(("value", "message"), WRONG)
def test_a_wrong_value_is_refused_by_the_schema(value, message):
    refused = charts.refusal("--set", value)

    assert "values don't meet the specifications of the schema" in refused
    assert message in refused


@each(("values", "message"), CONTRADICTIONS)
def test_values_that_are_wrong_together_are_refused(values, message):
    assert message in charts.refusal("--set", values)


def test_no_object_of_the_schema_takes_what_it_does_not_list():
    #: Maps of names, and what Kubernetes itself checks.
    free = {"global", "lanes", "pools", "strings", "podSelector", "namespaceSelector", "tolerations", "items"}

    def walk(where, schema):
        if isinstance(schema, list):
            for part in schema:
                yield from walk(where, part)
        elif isinstance(schema, dict):
            if schema.get("type") == "object" and where not in free:
                yield where, schema.get("additionalProperties")
            for name, part in schema.items():
                if name not in {"if", "then", "not"}:
                    yield from walk(where if name in {"properties", "$defs"} else name, part)

    found = list(walk("values", json.loads((chart.CHART / "values.schema.json").read_text())))

    assert len(found) > 30
    assert [where for where, more in found if more is not False] == []
