#!/usr/bin/env python3
"""Grafana's dashboards from a description: ``deploy/grafana/generate.py`` writes ``deploy/grafana/dashboards``.

A dashboard is rows of panels; a panel is a title, a unit and its queries. Everything else is the same everywhere.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}

WIDTH = 24  #: columns of a dashboard
HEIGHT = {"timeseries": 8, "stat": 4, "table": 8}  #: grid units

RATE = "[$__rate_interval]"

#: The name of a query, as `Panel.queries` has it: PromQL and the legend of its series.
Query = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One graph, number or table."""

    title: str
    unit: str  #: Grafana's name of it, e.g. ``s``, ``reqps``, ``percentunit``
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    help: str = ""
    limits: tuple[float, ...] = ()  #: yellow (if there are two) and red from here on; drawn as lines in graphs
    bad_below: bool = False  #: with limits: red below the first, green above
    exemplars: bool = False  #: dots that lead to a trace


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One page."""

    uid: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]
    since: str = "now-3h"


def rate(metric: str, *by: str, where: str = "") -> str:
    """Events a second, over all processes."""
    return f"sum{_by(by)} (rate({metric}{_where(where)}{RATE}))"


def quantile(share: float, metric: str, *by: str, where: str = "") -> str:
    """A quantile of a histogram, over all processes."""
    return (
        f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) (rate({metric}_bucket{_where(where)}{RATE})))"
    )


def quantiles(metric: str, where: str = "") -> tuple[Query, ...]:
    """Median, 95th and 99th percentile."""
    return tuple((quantile(share, metric, where=where), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _where(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


GATEWAY = "job='gateway'"
ACCEPT = 'method="POST",route="/v1/tasks"'
WORK = 'queue="robot.task.q"'
DLQ = 'queue="robot.task.dlq"'
RUNGS = 'queue=~"robot.retry.q..+"'

FLOW = Dashboard(
    "robot-flow",
    "Flow",
    (
        (
            Panel("Accepted", "reqps", ((rate("robot_tasks_accepted_total"), ""),), "stat"),
            Panel("Refused", "reqps", ((f"{rate('robot_tasks_refused_total')} or vector(0)", ""),), "stat", limits=(0.01, 1)),
            Panel("Ready in the work queue", "short", ((f"max(robot:queue_messages:max{{{WORK},state='ready'}})", ""),), "stat"),
            Panel("Running", "short", (("sum(robot_tasks_in_flight)", ""),), "stat"),
            Panel("Dead letters", "short", ((f"max(robot:queue_messages:max{{{DLQ},state='ready'}})", ""),), "stat", limits=(1, 100)),
            Panel("Guard refuses", "bool_yes_no", (("max(robot_queue_guard_refusing)", ""),), "stat", limits=(1,)),
        ),
        (
            Panel("Accepted by type", "reqps", ((rate("robot_tasks_accepted_total", "type"), "{{type}}"),)),
            Panel("Refused by reason", "reqps", ((rate("robot_tasks_refused_total", "reason"), "{{reason}}"),)),
        ),
        (
            Panel("Accepting takes", "s", quantiles("robot_http_request_duration_seconds", ACCEPT), limits=(1,),
                  help="POST /v1/tasks. Objective: 95 % within 1 s.", exemplars=True),
            Panel("RabbitMQ's confirm takes", "s", quantiles("robot_publish_confirm_seconds", GATEWAY), limits=(0.5, 2),
                  help="After DISPATCH_CONFIRM_TIMEOUT (2 s) the answer is publish-unconfirmed.", exemplars=True),
        ),
        (
            Panel("Requests by route", "reqps", ((rate("robot_http_requests_total", "method", "route"), "{{method}} {{route}}"),)),
            Panel("Answers by status", "reqps", ((rate("robot_http_requests_total", "status"), "{{status}}"),)),
        ),
        (
            Panel("Attempts by outcome", "ops", ((rate("robot_task_attempts_total", "outcome"), "{{outcome}}"),)),
            Panel("Retries by rung", "ops", ((rate("robot_task_retries_total", "rung"), "{{rung}}"),)),
            Panel("Dead letters by reason", "ops", ((rate("robot_dead_letters_total", "reason"), "{{reason}}"),)),
        ),
    ),
)  # fmt: skip

QUEUES = Dashboard(
    "robot-queues",
    "Queues and ladder",
    (
        (
            Panel("Oldest task waits", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{WORK}}}", ""),), "stat", limits=(600, 1800)),
            Panel("Consumers", "short", ((f"robot:queue_consumers:max{{{WORK}}}", ""),), "stat", limits=(1,), bad_below=True),
            Panel("On a rung", "short", ((f"sum(robot:queue_messages:max{{{RUNGS},state='ready'}})", ""),), "stat"),
            Panel("Dead letters", "short", ((f"max(robot:queue_messages:max{{{DLQ},state='ready'}})", ""),), "stat", limits=(1, 100)),
            Panel("Oldest letter", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{DLQ}}}", ""),), "stat", limits=(86_400, 604_800)),
            Panel("Drift", "short", (("max(robot_topology_drift)", ""),), "stat", limits=(1,),
                  help="Differences between RabbitMQ and topology.py: `celery -A celery_app topology verify`."),
        ),
        (
            Panel("Ready", "short", (("robot:queue_messages:max{state='ready'}", "{{queue}}"),)),
            Panel("Unacked", "short", (("robot:queue_messages:max{state='unacked'}", "{{queue}}"),),
                  help="In workers' hands. 40 a worker at most in the work queue."),
        ),
        (
            Panel("The ladder", "short", ((f"robot:queue_messages:max{{{RUNGS},state='ready'}}", "{{queue}}"),),
                  help="What waits for its next attempt; a queue's messages move on when its TTL is over."),
            Panel("Oldest task waits", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{WORK}}}", "{{queue}}"),), limits=(600, 1800),
                  help="Queued and not claimed, wherever its copy is: one that is stuck on a rung after its time, too."),
        ),
        (
            Panel("Work queue as the gateway sees it", "short", (("max(robot_queue_depth)", "ready"),),
                  help="What the 429 guard goes by."),
            Panel("Consumers", "short", (("robot:queue_consumers:max", "{{queue}}"),)),
        ),
        (
            Panel("Retries by rung", "ops", ((rate("robot_task_retries_total", "rung"), "{{rung}}"),)),
            Panel("Retries by type", "ops", ((rate("robot_task_retries_total", "type"), "{{type}}"),)),
            Panel("Dead letters by reason", "ops", ((rate("robot_dead_letters_total", "reason"), "{{reason}}"),)),
        ),
    ),
)  # fmt: skip

WORKERS = Dashboard(
    "robot-workers",
    "Workers",
    (
        (
            Panel("Workers", "short", (("sum(up{job='worker'})", ""),), "stat", limits=(1,), bad_below=True),
            Panel("Running", "short", (("sum(robot_tasks_in_flight)", ""),), "stat"),
            Panel("Attempts", "ops", ((rate("robot_task_attempts_total"), ""),), "stat"),
            Panel("Leases lost in an hour", "short", (("sum(increase(robot_leases_lost_total[1h])) or vector(0)", ""),), "stat", limits=(1, 20)),
        ),
        (
            Panel("Attempts by outcome", "ops", ((rate("robot_task_attempts_total", "outcome"), "{{outcome}}"),)),
            Panel("Attempts by type", "ops", ((rate("robot_task_attempts_total", "type"), "{{type}}"),)),
            Panel("Running, by worker", "short", (("robot_tasks_in_flight", "{{instance}}"),)),
        ),
        (
            Panel("An attempt takes (p95)", "s", ((quantile(0.95, "robot_task_duration_seconds", "type"), "{{type}}"),), exemplars=True),
            Panel("A task waits in the queue (p95)", "s", ((quantile(0.95, "robot_task_queue_seconds", "type"), "{{type}}"),), exemplars=True),
        ),
        (
            Panel("Claims by answer", "ops", ((rate("robot_claims_total", "answer"), "{{answer}}"),),
                  help="RUN is the normal one. DONE and STALE are extra copies, BUSY a copy whose first still runs."),
            Panel("Leases lost", "ops", ((rate("robot_leases_lost_total"), "lost"),)),
            Panel("What the sweeper did", "ops", ((rate("robot_sweeper_actions_total", "action"), "{{action}}"),)),
        ),
        (
            Panel("Versions", "short", (("count by (job, version) (robot_build_info)", "{{job}} {{version}}"),), "table"),
        ),
    ),
)  # fmt: skip

SLO = Dashboard(
    "robot-slo",
    "Service level",
    (
        (
            Panel("Accepted in 30 days", "percentunit", (("1 - robot:acceptance_errors:ratio_rate30d", ""),), "stat", limits=(0.995,), bad_below=True),
            Panel("Error budget left", "percentunit", (("robot:acceptance_budget:remaining30d", ""),), "stat", limits=(0,), bad_below=True),
            Panel("Accepting, p95", "s", (("robot:acceptance_seconds:quantile5m{quantile='0.95'}", ""),), "stat", limits=(1,)),
            Panel("Status query, p95", "s", (("robot:status_query_seconds:quantile5m{quantile='0.95'}", ""),), "stat", limits=(0.3,)),
            Panel("Status query, p99", "s", (("robot:status_query_seconds:quantile5m{quantile='0.99'}", ""),), "stat", limits=(0.8,)),
        ),
        (
            Panel("Burn rate", "short", (
                ("robot:acceptance_errors:ratio_rate1h / 0.005", "1 h (pages at 72)"),
                ("robot:acceptance_errors:ratio_rate6h / 0.005", "6 h (pages at 24)"),
            ), help="1: the month's budget is spent at the end of the month.", limits=(24, 72)),
            Panel("Refused share", "percentunit", (
                ("robot:acceptance_errors:ratio_rate5m", "5 min"),
                ("robot:acceptance_errors:ratio_rate1h", "1 h"),
            ), limits=(0.005,)),
        ),
        (
            Panel("Accepting takes", "s", (("robot:acceptance_seconds:quantile5m", "p{{quantile}}"),), limits=(1,)),
            Panel("A status query takes", "s", (("robot:status_query_seconds:quantile5m", "p{{quantile}}"),), limits=(0.3, 0.8)),
        ),
        (
            Panel("Alerts", "short", (("ALERTS{alertname=~'Robot.+'}", "{{alertname}}"),), "table"),
        ),
    ),
    since="now-24h",
)  # fmt: skip

DASHBOARDS = {"flow": FLOW, "queues": QUEUES, "workers": WORKERS, "slo": SLO}


def render(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana's JSON model.

    Args:
        dashboard: what to show.
    """
    panels: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        width, height = WIDTH // len(row), HEIGHT[row[0].kind]
        for column, panel in enumerate(row):
            place = {"x": column * width, "y": top, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
        top += height
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["robot-dispatch"],
        "editable": False,
        "schemaVersion": 39,
        "time": {"from": dashboard.since, "to": "now"},
        "refresh": "30s",
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Robot Dispatch", "tags": ["robot-dispatch"], "asDropdown": False}],
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "targets": [_target(number, query, panel) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(number: int, query: Query, panel: Panel) -> dict[str, Any]:
    expression, legend = query
    shape = {"format": "table", "instant": True} if panel.kind == "table" else {}
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "exemplar": panel.exemplars,
        **shape,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.kind == "timeseries":
        lines = "line" if panel.limits else "off"
        found |= {"min": 0, "custom": {"lineWidth": 1, "fillOpacity": 8, "thresholdsStyle": {"mode": lines}}}
    return found


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if not panel.limits:
        return [{"color": "green", "value": None}]
    if panel.bad_below:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.limits[0]}]
    colours = ("yellow", "red")[-len(panel.limits) :]
    above = [{"color": colour, "value": limit} for colour, limit in zip(colours, panel.limits, strict=True)]
    return [{"color": "green", "value": None}, *above]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {"showHeader": True}


def main() -> None:
    """Write every dashboard."""
    for name, dashboard in DASHBOARDS.items():
        (DIRECTORY / f"{name}.json").write_text(f"{json.dumps(render(dashboard), indent=2)}\n")


if __name__ == "__main__":
    main()
