"""What is deployed, read as data: the compose file with its variables, rules, dashboards."""

import json
import re
from pathlib import Path

import yaml

from dispatch.telemetry import metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

#: ``${NAME:?message}`` and ``${NAME:-default}``; ``$$`` is a dollar for the container's shell.
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")

#: A metric of ours in PromQL; a recording rule has colons.
METRIC = re.compile(r"(?<![\w:])robot_\w+(?![\w:])")
RECORDED = re.compile(r"(?<![\w:])robot:[\w:]+")


#: Our metrics as they are asked for (a histogram without ``_bucket``), and their labels.
METRICS = {
    **{instrument.name: set(instrument.labels) for instrument in metrics.Instrument.every},
    **{
        name: set(labels)
        for name, _, labels in (
            metrics.QUEUE_MESSAGES,
            metrics.QUEUE_CONSUMERS,
            metrics.OLDEST,
            metrics.DRIFT,
            metrics.REDIS_MEMORY,
            metrics.HELD,
            metrics.SCHEDULES,
            metrics.LAST_FIRE,
            metrics.BUILD,
        )
    },
}


def load(path):
    """A YAML file of the repository."""
    return _parsed((ROOT / path).read_text())


def variables():
    """The compose file's variables: by name, ``?`` or ``-`` and what follows."""
    return {name: (kind, text) for name, kind, text in VARIABLE.findall((ROOT / "docker-compose.yml").read_text())}


def compose(**values):
    """The compose file with its variables replaced, as Compose does it.

    Args:
        values: of variables; others get their default, or ``<name in lower case>``.
    """

    def value(found):
        name, kind, default = found.groups()
        return values.get(name, default if kind == "-" else name.lower())

    text = VARIABLE.sub(value, (ROOT / "docker-compose.yml").read_text())
    return _parsed(text.replace("$$", "$"))


def _parsed(text):
    return yaml.load(text, Loader=yaml.CSafeLoader)  # libyaml: the pure Python one takes a tenth of a second a file


def rules():
    """Every Prometheus rule, of every group."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    return [rule for file in files for group in load(file)["groups"] for rule in group["rules"]]


def dashboards():
    """Grafana's dashboards as committed, by file name."""
    return {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}


def queries():
    """Every dashboard's PromQL, with Grafana's own variables replaced."""
    return [
        target["expr"].replace("$__rate_interval", "1m")
        for dashboard in dashboards().values()
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
