#!/usr/bin/env python3
"""Generates Grafana's dashboards: ``deploy/grafana/generate.py`` writes ``deploy/grafana/dashboards``.

A dashboard has rows of panels; a panel has a title, a unit and queries. Everything else is the same for all.
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

#: PromQL, and the legend of its series.
PanelQuery = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One graph, number or table."""

    title: str
    unit: str  #: in Grafana's notation, e.g. ``s``, ``reqps``, ``percentunit``
    queries: tuple[PanelQuery, ...]
    kind: str = "timeseries"
    help: str = ""
    limits: tuple[float, ...] = ()  #: thresholds for yellow (if two) and red; drawn as lines in graphs
    bad_below: bool = False  #: with `limits`: red below the first, green above
    exemplars: bool = False  #: show exemplars, which link to traces


@dataclasses.dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    rows: tuple[tuple[Panel, ...], ...]
    since: str = "now-3h"


def rate(metric: str, *by: str, where: str = "") -> str:
    """Events a second, summed over all processes."""
    return f"sum{_by(by)} (rate({metric}{_where(where)}{RATE}))"


def quantile(q: float, metric: str, *by: str, where: str = "") -> str:
    """A quantile of a histogram, over all processes."""
    return f"histogram_quantile({q}, sum by ({', '.join(('le', *by))}) (rate({metric}_bucket{_where(where)}{RATE})))"


def quantiles(metric: str, where: str = "") -> tuple[PanelQuery, ...]:
    """Median, 95th and 99th percentile."""
    return tuple((quantile(q, metric, where=where), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _where(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


GATEWAY = "job='gateway'"
ACCEPT = 'method="POST",route="/v1/tasks"'
WORK = 'queue="robot.task.q"'
DLQ = 'queue="robot.task.dlq"'
RUNGS = 'queue=~"robot.retry.q..+"'
LEVELS = 'queue=~"robot.delay.q..+"'

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
            Panel("Guard rejects", "bool_yes_no", (("max(robot_queue_guard_refusing)", ""),), "stat", limits=(1,)),
        ),
        (
            Panel("Accepted by type", "reqps", ((rate("robot_tasks_accepted_total", "type"), "{{type}}"),)),
            Panel("Refused by reason", "reqps", ((rate("robot_tasks_refused_total", "reason"), "{{reason}}"),)),
            Panel("Quotas used up", "reqps", ((rate("robot_quota_refusals_total", "quota"), "{{quota}}"),),
                  help="429 quota-exceeded: one principal has its share of requests, tasks, bytes or dead letters."),
            Panel("Signals", "reqps",
                  ((rate("robot_signals_total", "outcome"), "{{outcome}}"), (rate("robot_signal_waits_total"), "waits for one")),
                  help="Signals and callbacks for tasks: they ended a wait, or are kept for one; and waits for a signal that began."),
        ),
        (
            Panel("Time to accept", "s", quantiles("robot_http_request_duration_seconds", ACCEPT), limits=(1,),
                  help="POST /v1/tasks. Objective: 95 % within 1 s.", exemplars=True),
            Panel("Time to RabbitMQ's confirm", "s", quantiles("robot_publish_confirm_seconds", GATEWAY), limits=(0.5, 2),
                  help="After DISPATCH_CONFIRM_TIMEOUT (2 s) the response is publish-unconfirmed.", exemplars=True),
        ),
        (
            Panel("Requests by route", "reqps", ((rate("robot_http_requests_total", "method", "route"), "{{method}} {{route}}"),)),
            Panel("Responses by status", "reqps", ((rate("robot_http_requests_total", "status"), "{{status}}"),)),
        ),
        (
            Panel("Unauthenticated by reason", "reqps", ((rate("robot_http_unauthenticated_total", "reason"), "{{reason}}"),),
                  help="401s. Without API keys: a client, a page or a proxy that is not this machine's own."),
            Panel("Rejected before the application", "reqps", ((rate("robot_http_rejected_total", "status"), "{{status}}"),),
                  help="Malformed or ambiguous requests, and heads that did not arrive in DISPATCH_HTTP_HEAD_TIMEOUT (408)."),
            Panel("Unread request bodies", "reqps", ((rate("robot_http_unread_bodies_total", "outcome"), "{{outcome}}"),),
                  help="Drained, or the connection closed, after a response that preceded the end of the body."),
        ),
        (
            Panel("Waiting for a task", "none", (("sum by (kind) (robot_http_waiting{" + GATEWAY + "})", "{{kind}}"),),
                  help="Long polls and event streams; each process has DISPATCH_HTTP_WAITS places."),
            Panel("Waits refused", "reqps", ((rate("robot_http_waits_refused_total", "reason"), "{{reason}}"),),
                  help="room: as many wait as the process has places for; share: the principal has its own."),
            Panel("Connections cut", "cps", ((rate("robot_http_connections_cut_total", "reason"), "{{reason}}"),),
                  help="Refused (peer, full), closed to make room (idle), or too slow (head, body, write)."),
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
            Panel("Oldest task's wait", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{WORK}}}", ""),), "stat", limits=(600, 1800)),
            Panel("Consumers", "short", ((f"robot:queue_consumers:max{{{WORK}}}", ""),), "stat", limits=(1,), bad_below=True),
            Panel("On rungs", "short", ((f"sum(robot:queue_messages:max{{{RUNGS},state='ready'}})", ""),), "stat"),
            Panel("Delayed", "short", ((f"sum(robot:queue_messages:max{{{LEVELS},state='ready'}})", ""),), "stat",
                  help="Tasks that were submitted for later."),
            Panel("Held", "short", (("max by (what) (robot_held_tasks)", "{{what}}"),), "stat",
                  help="By a pause, or for their turn: `celery -A celery_app tasks pauses`, `… keys`."),
            Panel("Dead letters", "short", ((f"max(robot:queue_messages:max{{{DLQ},state='ready'}})", ""),), "stat", limits=(1, 100)),
            Panel("Oldest dead letter", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{DLQ}}}", ""),), "stat", limits=(86_400, 604_800)),
            Panel("Drift", "short", (("max(robot_topology_drift)", ""),), "stat", limits=(1,),
                  help="Differences between RabbitMQ and topology.py: `celery -A celery_app topology verify`."),
        ),
        (
            Panel("Ready", "short", (("robot:queue_messages:max{state='ready'}", "{{queue}}"),)),
            Panel("Unacked", "short", (("robot:queue_messages:max{state='unacked'}", "{{queue}}"),),
                  help="Delivered to workers; in the work queue at most 40 a worker."),
            Panel("Redis memory", "percentunit", (("max(robot_redis_memory_ratio)", "in use"),), limits=(0.8, 0.95),
                  help="Share of maxmemory, of the fullest node; at 100 % every new task is refused."),
        ),
        (
            Panel("The ladder", "short", ((f"robot:queue_messages:max{{{RUNGS},state='ready'}}", "{{queue}}"),),
                  help="Messages that wait for their next attempt; a queue dead-letters them after its TTL."),
            Panel("Oldest task's wait", "s", ((f"robot:queue_oldest_message_age_seconds:max{{{WORK}}}", "{{queue}}"),), limits=(600, 1800),
                  help="Queued and not claimed, wherever its copy is, including a copy stuck on a rung after its TTL."),
        ),
        (
            Panel("Work queue depth in the gateway", "short", (("max(robot_queue_depth)", "ready"),),
                  help="The input of the 429 guard."),
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
            Panel("Wait in the queue (p95)", "s", ((quantile(0.95, "robot_task_queue_seconds", "type"), "{{type}}"),), exemplars=True),
        ),
        (
            Panel("Claims by result", "ops", ((rate("robot_claims_total", "answer"), "{{answer}}"),),
                  help="RUN is the normal one. DONE and STALE are extra copies, BUSY a copy of a task that is running, OVERDUE came after its deadline."),
            Panel("Leases lost", "ops", ((rate("robot_leases_lost_total"), "lost"),)),
            Panel("Runaway threads", "short", (("robot_runaway_threads", "{{instance}}"),)),
            Panel("Schedules", "short", (("max by (state) (robot_schedules)", "{{state}}"),),
                  help="missed: a due time was not handled within a minute; failing: the last one led to no task."),
            Panel("Since a schedule's last task", "s", (("(time() - max(robot_schedule_last_fire_timestamp_seconds)) or vector(0)", ""),)),
            Panel("Sweeper actions", "ops", ((rate("robot_sweeper_actions_total", "action"), "{{action}}"),)),
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
            Panel("Error budget remaining", "percentunit", (("robot:acceptance_budget:remaining30d", ""),), "stat", limits=(0,), bad_below=True),
            Panel("Time to accept, p95", "s", (("robot:acceptance_seconds:quantile5m{quantile='0.95'}", ""),), "stat", limits=(1,)),
            Panel("Status query, p95", "s", (("robot:status_query_seconds:quantile5m{quantile='0.95'}", ""),), "stat", limits=(0.3,)),
            Panel("Status query, p99", "s", (("robot:status_query_seconds:quantile5m{quantile='0.99'}", ""),), "stat", limits=(0.8,)),
        ),
        (
            Panel("Burn rate", "short", (
                ("robot:acceptance_errors:ratio_rate1h / 0.005", "1 h (pages at 72)"),
                ("robot:acceptance_errors:ratio_rate6h / 0.005", "6 h (pages at 24)"),
            ), help="1: the budget lasts exactly one month.", limits=(24, 72)),
            Panel("Refused share", "percentunit", (
                ("robot:acceptance_errors:ratio_rate5m", "5 min"),
                ("robot:acceptance_errors:ratio_rate1h", "1 h"),
            ), limits=(0.005,)),
        ),
        (
            Panel("Time to accept", "s", (("robot:acceptance_seconds:quantile5m", "p{{quantile}}"),), limits=(1,)),
            Panel("Time of a status query", "s", (("robot:status_query_seconds:quantile5m", "p{{quantile}}"),), limits=(0.3, 0.8)),
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
        dashboard: its description.
    """
    panels: list[dict[str, Any]] = []
    top = 0
    for row in dashboard.rows:
        width, height = WIDTH // len(row), HEIGHT[row[0].kind]
        for column, panel in enumerate(row):
            position = {"x": column * width, "y": top, "w": width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": position, **_panel(panel)})
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


def _target(number: int, query: PanelQuery, panel: Panel) -> dict[str, Any]:
    expression, legend = query
    table = {"format": "table", "instant": True} if panel.kind == "table" else {}
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "exemplar": panel.exemplars,
        **table,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    result: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}}
    if panel.kind == "timeseries":
        lines = "line" if panel.limits else "off"
        result |= {"min": 0, "custom": {"lineWidth": 1, "fillOpacity": 8, "thresholdsStyle": {"mode": lines}}}
    return result


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
