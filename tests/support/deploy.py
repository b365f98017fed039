"""What is deployed, read as data: the compose file with its variables, rules, dashboards."""

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

#: ``${NAME:?message}`` and ``${NAME:-default}``; ``$$`` is a dollar for the container's shell.
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([?-])([^}]*))?\}")

#: A metric of ours in PromQL; a recording rule has colons.
METRIC = re.compile(r"(?<![\w:])robot_\w+(?![\w:])")
RECORDED = re.compile(r"(?<![\w:])robot:[\w:]+")


#: Our metrics as they are asked for (a histogram without ``_bucket``), and their labels.
METRICS = {
    "robot_http_requests_total": {"method", "route", "status"},
    "robot_http_request_duration_seconds": {"method", "route"},
    "robot_tasks_accepted_total": {"type"},
    "robot_tasks_refused_total": {"reason"},
    "robot_publish_confirm_seconds": set(),
    "robot_queue_guard_refusing": set(),
    "robot_queue_depth": set(),
    "robot_task_attempts_total": {"type", "outcome"},
    "robot_task_duration_seconds": {"type"},
    "robot_task_queue_seconds": {"type"},
    "robot_task_retries_total": {"type", "rung"},
    "robot_dead_letters_total": {"reason"},
    "robot_claims_total": {"answer"},
    "robot_leases_lost_total": set(),
    "robot_tasks_in_flight": set(),
    "robot_sweeper_actions_total": {"action"},
    "robot_queue_messages": {"queue", "state"},
    "robot_queue_consumers": {"queue"},
    "robot_queue_oldest_message_age_seconds": {"queue"},
    "robot_topology_drift": set(),
    "robot_build_info": {"version"},
}


def load(path):
    """A YAML file of the repository."""
    return yaml.safe_load((ROOT / path).read_text())


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
    return yaml.safe_load(text.replace("$$", "$"))


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
