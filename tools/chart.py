"""What the Helm chart takes from the code, and the plain manifests that it renders: ``python -m tools.chart``.

Writes ``files/`` and the settings in ``values.schema.json`` of the chart, then ``deploy/kubernetes``; tests compare all of them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from dispatch.broker import definitions
from dispatch.config.settings import PREFIX, Settings
from dispatch.protocol import names

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "robot-dispatch"
MANIFESTS = ROOT / "deploy" / "kubernetes"

#: Of a release and a namespace with the system's own name.
NAME = "robot-dispatch"

#: What stands in a role's patterns for the work queues, which the chart knows from its lanes.
WORK_QUEUES = "WORK_QUEUES"

#: Settings that the chart sets itself, or that mean nothing in a cluster. Secrets are never values, whatever their name.
OWN = frozenset({
    "apply_topology", "lanes", "shards", "soft_shutdown", "concurrency_min", "concurrency_max", "worker_threads", "worker_pool",
    "worker_metrics_host", "worker_metrics_port", "http_host", "http_port", "http_tls_cert", "http_tls_key",
    "http_tls_client_ca", "api_keys", "api_keys_file", "broker_tls_ca", "broker_tls_cert", "broker_tls_key", "redis_tls_ca",
    "redis_tls_cert", "redis_tls_key", "robot_client_id", "flower_host", "flower_port", "run_dir", "rabbitmq_port",
    "rabbitmq_management_port", "redis_port", "simulator_port",
})  # fmt: skip

#: The manifests in the order in which they are applied: an upgrade has workers before gateways.
ORDER = ("00-common", "10-servers", "20-topology", "30-workers", "40-gateway", "50-flower")

_HEADER = (
    "# Rendered from deploy/helm/robot-dispatch by `python -m tools.chart`: change the chart, not this file.\n"
    "# How to apply it: docs/how-to/deploy-on-kubernetes.md\n"
)


def helm() -> str:
    """The program: that of the variable ``HELM``, or what ``scripts/setup-helm.sh`` brought."""
    return os.environ.get("HELM") or str(ROOT / ".run" / "helm" / "helm")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without configuration, plugins or caches of this user, and without a cluster.

    Args:
        words: command and options.
    """
    nowhere = {f"HELM_{kind}_HOME": "/nonexistent" for kind in ("CONFIG", "CACHE", "DATA")}
    environ = {"PATH": os.environ.get("PATH", ""), "HOME": "/nonexistent", **nowhere}
    return subprocess.run((helm(), *words), env=environ, capture_output=True, text=True, check=False)


def template(*options: str) -> subprocess.CompletedProcess[str]:
    """What ``helm template`` prints, or why it refuses.

    Args:
        options: of the command.
    """
    return run("template", NAME, str(CHART), "--namespace", NAME, *options)


def notes(*options: str) -> str:
    """What Helm prints after an install.

    Args:
        options: of the command.

    Raises:
        RuntimeError: the chart can't be rendered.
    """
    done = run("install", NAME, str(CHART), "--namespace", NAME, "--dry-run=client", *options)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.partition("\nNOTES:\n")[2]


def values() -> list[str]:
    """Settings that may be values: the rest is secret, or the chart's own."""
    return [
        PREFIX + name.upper()
        for name, field in Settings.model_fields.items()
        if name not in OWN and "SecretStr" not in str(field.annotation)
    ]


def files() -> dict[str, str]:
    """What is in the chart's ``files/``, by name."""
    deploy = ROOT / "deploy"
    paragraphs = (deploy / "rabbitmq" / "rabbitmq.conf").read_text().split("\n\n")
    return {
        "advanced.config": (deploy / "rabbitmq" / "advanced.config").read_text(),
        # Operators apply the map and the users.
        "rabbitmq.conf": "\n\n".join(each for each in paragraphs if "load_definitions" not in each),
        "redis.conf": (deploy / "redis" / "redis.conf").read_text(),
        "users.conf": (deploy / "redis" / "users.conf").read_text(),
        "roles.json": json.dumps([_role(each) for each in definitions.ROLES], indent=2) + "\n",
    }


def schema() -> str:
    """``values.schema.json`` with the settings as they are now."""
    found = json.loads((CHART / "values.schema.json").read_text())
    found["$defs"]["settings"]["properties"] = {
        name: {"$ref": "#/$defs/setting", "description": _described(name)} for name in values()
    }
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def manifests() -> dict[str, str]:
    """The chart's default rendering as files to apply one after the other, by name.

    Raises:
        RuntimeError: the chart can't be rendered.
    """
    done = template()
    if done.returncode:
        raise RuntimeError(done.stderr)
    parts: dict[str, list[str]] = {name: [] for name in ORDER}
    for text, document in _documents(done.stdout):
        parts[_part(document)].append(text)
    return {f"{name}.yaml": _HEADER + "".join(f"---\n{text}\n" for text in texts) for name, texts in parts.items()}


def _documents(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each document as it stands, without Helm's own marks, and as data."""
    for each in re.split(r"^---$", text, flags=re.MULTILINE):
        bare = "\n".join(
            line.rstrip()
            for line in each.strip().splitlines()
            if not line.startswith("# Source:")
            and not re.match(r" +(helm\.sh/chart|app\.kubernetes\.io/managed-by):", line)
        )
        document = yaml.safe_load(bare)
        if document:
            yield bare, document


def _part(document: Mapping[str, Any]) -> str:
    kind, component = document["kind"], document["metadata"]["labels"]["app.kubernetes.io/component"]
    if kind in {"NetworkPolicy", "ServiceAccount"}:
        return "00-common"
    parts = {"rabbitmq": "10-servers", "redis": "10-servers", "topology": "20-topology", "flower": "50-flower"}
    return parts.get(component, "40-gateway" if component == "gateway" else "30-workers")


def _role(role: definitions.Role) -> dict[str, Any]:
    queue = rf"(?<=[(|]){re.escape(re.escape(names.WORK_QUEUE))}(?=[|)])"
    found = dataclasses.asdict(role)
    for right in ("write", "read"):
        found[right] = re.sub(queue, WORK_QUEUES, found[right])
    return {
        **found,
        "topic": [{"exchange": exchange, "write": keys, "read": definitions.NOTHING} for exchange, keys in role.topic],
    }


def _described(name: str) -> str:
    field: pydantic.fields.FieldInfo = Settings.model_fields[name.removeprefix(PREFIX).lower()]
    return str(field.description)


def main() -> None:
    """Write everything; brings Helm where it is missing."""
    subprocess.run((str(ROOT / "scripts" / "setup-helm.sh"),), check=True)
    for name, text in files().items():
        (CHART / "files" / name).write_text(text)
    (CHART / "values.schema.json").write_text(schema())
    MANIFESTS.mkdir(exist_ok=True)
    for name, text in manifests().items():
        (MANIFESTS / name).write_text(text)


if __name__ == "__main__":
    main()
