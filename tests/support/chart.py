"""The Helm chart, rendered with each of its values files, and what a kubelet makes of a container's environment."""

import functools
import json
import re

import jsonschema
import kubernetes_validate.utils
import referencing
import yaml

from support import deploy
from tools import chart

CI = chart.CHART / "ci"

#: Values files by name; `default` has none.
VARIANTS = {"default": (), **{path.stem: ("--values", str(path)) for path in sorted(CI.glob("*.yaml"))}}

#: Of custom resources, for which the tests have schemas of their own.
OPERATORS = ("keda.sh/", "rabbitmq.com/")
CRDS = deploy.ROOT / "tests" / "deploy" / "crds"

#: The oldest Kubernetes that the chart takes, and the newest that there are schemas for.
VERSIONS = ("1.30", "1.37")

_REFERENCE = re.compile(r"\$\$|\$\((\w+)\)")


@functools.cache
def rendered(variant="default", *options):
    """Every object that a variant renders.

    Args:
        variant: of `VARIANTS`.
        options: of `helm template`.
    """
    done = chart.template(*VARIANTS[variant], *options)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if each]


def check(document):
    """Refuse what a strict API server would refuse.

    Args:
        document: an object.

    Raises:
        jsonschema.ValidationError: it has an unknown field, one of another type, or lacks one.
    """
    if document["apiVersion"].startswith(OPERATORS):
        schema = json.loads((CRDS / f"{document['kind']}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(document)
        return
    for version in VERSIONS:
        _kubernetes(version, document["kind"], document["apiVersion"]).validate(document)


@functools.cache
def _kubernetes(version, kind, api_version):
    """What `kubernetes_validate.validate` makes for each call: 20 ms of parsing."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = _schema(version, f"{kind.lower()}-{group}.json")
    registry = referencing.Registry().with_resources(
        (each["$id"], referencing.Resource.from_contents(each))
        for each in (schema, _schema(version, "_definitions.json"))
    )
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _schema(version, name):
    path = f"kubernetes-json-schema/v{version}.0-local-strict/{name}"
    return kubernetes_validate.utils.schema_contents(path, version)


def refusal(*options):
    """Why `helm template` refuses; empty when it does not."""
    done = chart.template(*options)
    return done.stderr if done.returncode else ""


def of_kind(objects, *kinds):
    """The objects of some kinds."""
    return [each for each in objects if each["kind"] in kinds]


def named(objects, kind, name):
    """One object, by kind and name without the release's."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == f"{chart.NAME}-{name}"]
    return found


def pods(objects):
    """Pod templates' specs by the object's name."""
    return {
        each["metadata"]["name"]: each["spec"]["template"]
        for each in of_kind(objects, "Deployment", "StatefulSet", "Job")
    }


def containers(objects):
    """Containers by the name of the object that they are in; each has one."""
    return {name: template["spec"]["containers"][0] for name, template in pods(objects).items()}


def role(secret):
    """The user's name in a Secret: its role."""
    return secret.rpartition("-")[2]


def variables(container, user=role):
    """A container's variables as its process finds them.

    A value from a Secret is `<secret>-<key>`.

    Args:
        container: of a pod.
        user: gives the user's name in a Secret, by the Secret's.
    """
    found = {}
    for each in container["env"]:
        found[each["name"]] = (
            _from_secret(each["valueFrom"], user) if "valueFrom" in each else expanded(each["value"], found)
        )
    return found


def expanded(text, known):
    """A value or an argument as the kubelet expands it: an unknown reference stays, ``$$`` is a dollar."""
    return _REFERENCE.sub(lambda found: known.get(found[1], found[0]) if found[1] else "$", text)


def arguments(container):
    """A container's arguments as its process finds them."""
    known = variables(container)
    return [expanded(each, known) for each in container["args"]]


def _from_secret(source, user):
    name, key = source["secretKeyRef"]["name"], source["secretKeyRef"]["key"]
    return user(name) if key == "username" else f"{name}-{key}"


def repository(path):
    """A file of the repository as text."""
    return (deploy.ROOT / path).read_text()
