"""``celery -A celery_app schedules list | show | put | delete | pause | resume | run-now``: over the gateway's HTTP API."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from dispatch.cli import tables
from dispatch.cli.output import NOT_DONE, UNANSWERED, as_json_option, echo_json, echo_line, environment, reported
from dispatch.cli.task_submission import GatewayClient, TaskNotAccepted, api_key
from dispatch.protocol import labels
from dispatch.protocol.schedules import CatchUp, Overlap

_reported = reported("schedules", code=lambda exc: NOT_DONE if isinstance(exc, TaskNotAccepted) else UNANSWERED)


@click.group()
def schedules() -> None:
    """Schedules: tasks that are submitted again and again."""


def _verb(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command of the group that asks the gateway: its function gets a client in place of address and key."""

    def decorate(command: Callable[..., None]) -> click.Command:
        @functools.wraps(command)
        def run(url: str | None, key_file: Any, **given: Any) -> None:
            environment()  # takes over the address of a running stack
            if not url:
                raise click.UsageError("name the gateway: --url, or DISPATCH_HTTP_URL")
            command(GatewayClient(url, api_key(key_file)), **given)

        made = as_json_option(_reported(run))
        made = click.option(
            "--key-file", type=click.File(), help="Has the API key; by default the variable KEY, if any."
        )(made)
        help_ = "The gateway's; DISPATCH_HTTP_URL by default."
        made = click.option("--url", envvar="DISPATCH_HTTP_URL", metavar="URL", help=help_)(made)
        return schedules.command(name)(made)

    return decorate


def _path(name: str, verb: str = "") -> str:
    return f"/v1/schedules/{quote(name, safe='')}{verb}"


@_verb("list")
@click.option("--principal", metavar="ID", help="Another principal's; * for those of all.")
def list_(client: GatewayClient, principal: str | None, as_json: bool) -> None:
    """Every schedule, by name."""
    query = f"?principal={quote(principal, safe='*')}" if principal else ""
    found = client.call("GET", f"/v1/schedules{query}")["items"]
    for item in found if as_json else []:
        echo_line(item)
    if not as_json:
        rows = [
            (
                item["name"], item["type"], item["cron"], item["timezone"], "paused" if item["paused"] else _first(item),
                str(item["fired"]), str(item["skipped"]), str(item["missed"]), item["error"] or "-",
            )
            for item in found
        ]  # fmt: skip
        heads = ("NAME", "TYPE", "CRON", "TIMEZONE", "NEXT", "FIRED", "SKIPPED", "MISSED", "ERROR")
        click.echo(tables.table(heads, rows, right={"FIRED", "SKIPPED", "MISSED"}) if rows else "no schedules")


def _first(item: dict[str, Any]) -> str:
    return item["nextRuns"][0] if item["nextRuns"] else "-"


@_verb("show")
@click.argument("name")
def show(client: GatewayClient, name: str, as_json: bool) -> None:
    """One schedule."""
    _print(client.call("GET", _path(name)), as_json=as_json)


@_verb("put")
@click.argument("name")
@click.argument("type_", metavar="TYPE")
@click.argument("payload", default="{}")
@click.option("--cron", required=True, metavar="EXPRESSION", help="Five fields, or six with seconds first.")
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="As in Europe/Berlin.")
@click.option("--overlap", type=click.Choice(list(Overlap)), default=Overlap.SKIP, show_default=True)
@click.option("--catch-up", type=click.Choice(list(CatchUp)), default=CatchUp.LAST, show_default=True)
@click.option(
    "--jitter", type=click.IntRange(0), default=0, metavar="SECONDS", help="Delays each task by up to so many."
)
@click.option("--label", "pairs", multiple=True, metavar="KEY=VALUE", help="Of its tasks; may be repeated.")
@click.option("--paused", is_flag=True, help="It submits nothing until it is resumed.")
def put(
    client: GatewayClient, name: str, type_: str, payload: str, pairs: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Create or change a schedule. PAYLOAD is a JSON object, or - for standard input."""
    try:
        value = json.loads(sys.stdin.read() if payload == "-" else payload)
        labelled = dict(labels.pair(pair) for pair in pairs)
    except ValueError as exc:
        raise click.UsageError(f"PAYLOAD is no JSON, or a label is none: {exc}") from None
    body = {
        "type": type_, "payload": value, "cron": given["cron"], "timezone": given["timezone"], "overlap": str(given["overlap"]),
        "catchUp": str(given["catch_up"]), "jitterSeconds": given["jitter"], "paused": given["paused"],
        "options": {"labels": labelled},
    }  # fmt: skip
    _print(client.call("PUT", _path(name), body), as_json=as_json)


@_verb("delete")
@click.argument("name")
def delete(client: GatewayClient, name: str, as_json: bool) -> None:
    """Delete a schedule; its tasks go on."""
    client.call("DELETE", _path(name))
    _print({"name": name, "deleted": True}, as_json=as_json)


@_verb("pause")
@click.argument("name")
def pause(client: GatewayClient, name: str, as_json: bool) -> None:
    """Submit nothing more until it is resumed."""
    _print(client.call("POST", _path(name, "/pause")), as_json=as_json)


@_verb("resume")
@click.argument("name")
def resume(client: GatewayClient, name: str, as_json: bool) -> None:
    """Go on with the next due time."""
    _print(client.call("POST", _path(name, "/resume")), as_json=as_json)


@_verb("run-now")
@click.argument("name")
def run_now(client: GatewayClient, name: str, as_json: bool) -> None:
    """Submit a schedule's task now, beside its due times."""
    _print(client.call("POST", _path(name, "/run-now")), as_json=as_json)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    for name, value in found.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{name:<14} {tables.visible(text)}")
