"""``celery -A celery_app tasks pause | resume | pauses | keys``: stop tasks that have not begun, let them go on; what holds tasks.

They read and write Redis itself, so they work while no gateway runs.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from dispatch.cli import acts
from dispatch.cli.output import NOT_DONE, as_json_option, counted, echo_json, environment, operator, reported
from dispatch.cli.tables import age, table, terminal_width
from dispatch.protocol import audit, moments
from dispatch.protocol.audit import AuditEntry
from dispatch.protocol.ids import timestamp
from dispatch.protocol.pauses import LANE, MAX_REASON, Pause, is_what
from dispatch.protocol.rates import RateLimit
from dispatch.store.audit import AuditLog
from dispatch.store.concurrency import ConcurrencyKeys, KeyView
from dispatch.store.pauses import HeldTasks, Pauses
from dispatch.store.rates import Rates, RateView
from dispatch.store.scripts import RedisHandle
from dispatch.tasktypes.registry import rates_of

#: Seconds for each Redis answer.
_REDIS_TIMEOUT = 2.0

_HEADS = ("WHAT", "HELD", "FOR", "UNTIL", "BY", "REASON")

_KEY_HEADS = ("KEY", "LIMIT", "WAITING", "HOLDERS")

#: Keys that are shown at most.
_MOST_KEYS = 1_000

_AHEAD = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class _Stores(NamedTuple):
    pauses: Pauses
    held: HeldTasks
    log: AuditLog
    keys: ConcurrencyKeys
    rates: Rates
    limits: dict[str, RateLimit]  #: by their names


@contextlib.contextmanager
def _connected() -> Iterator[_Stores]:
    settings, types, _ = environment()
    redis = RedisHandle(settings, timeout=_REDIS_TIMEOUT)
    try:
        yield _Stores(
            Pauses(redis),
            HeldTasks(redis),
            AuditLog(redis, settings, lines=False),
            ConcurrencyKeys(redis, lease=settings.lease),
            Rates(redis, lease=settings.lease),
            {limit.name: limit for limit in rates_of(types)},
        )
    finally:
        redis.close()


class _What(click.ParamType[str]):
    """What can be paused."""

    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_what(value):
            self.fail("all, type:<task type>, principal:<id>, key:<concurrency key> or lane:<lane>", param, ctx)
        return str(value)


class _Ahead(click.ParamType[int]):
    """A time in the future, or how far ahead it is."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if ahead := _AHEAD.fullmatch(value):
            return int((time.time() + int(ahead[1]) * _UNITS[ahead[2]]) * 1_000)
        try:
            at = moments.millis(value)
        except ValueError:
            self.fail("30s, 10m, 2h, 1d ahead, or an RFC 3339 time: 2026-11-24T02:36:00Z", param, ctx)
        if at <= time.time() * 1_000:
            self.fail("it has passed", param, ctx)
        return at


class _Reason(click.ParamType[str]):
    """Why something is paused."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not 1 <= len(value) <= MAX_REASON:
            self.fail(f"1 to {MAX_REASON} characters", param, ctx)
        return str(value)


_name = click.option("--as", "name", metavar="NAME", help="Who you are, for the audit log.")


@click.command("pause")
@click.argument("what", type=_What())
@click.option("--reason", type=_Reason(), required=True, help="Why, for other operators.")
@click.option("--until", type=_Ahead(), help="When it ends by itself: 30m, 2h, 1d ahead, or an RFC 3339 time.")
@_name
@as_json_option
@reported("tasks")
def pause(what: str, reason: str, until: int | None, name: str | None, as_json: bool) -> None:
    """Pause tasks: all, type:<task type>, principal:<id>, key:<concurrency key> or lane:<lane>. What runs goes on."""
    by = operator(name)
    made = Pause(what, reason, by, int(time.time() * 1_000), until)
    lane, lanes = what.removeprefix(LANE), environment()[0].lanes
    if lane not in (what, *lanes.queues):
        raise click.BadParameter(f"there is no lane {lane!r}: {', '.join(lanes.queues)}", param_hint="WHAT")
    with _connected() as stores:
        stores.pauses.put(made)
        details = {"reason": reason, "until": made.to_json()["until"]}
        acts.record(
            stores.log, AuditEntry(by, audit.PAUSE, what, audit.OK, client=socket.gethostname(), details=details)
        )
        held = stores.held.counts([what])[what]
    if as_json:
        echo_json({**made.to_json(), "held": held})
    else:
        click.echo(f"{what} is paused; the workers know of it within two seconds")


@click.command("resume")
@click.argument("what", type=_What())
@_name
@as_json_option
@reported("tasks")
def resume(what: str, name: str | None, as_json: bool) -> None:
    """End a pause: the workers send what it held."""
    by = operator(name)
    with _connected() as stores:
        held = stores.held.counts([what])[what]
        ended = stores.pauses.remove(what)
        result = audit.OK if ended else "pause-not-found"
        acts.record(stores.log, AuditEntry(by, audit.RESUME, what, result, client=socket.gethostname()))
    if not ended:
        click.echo(f"{what} is not paused", err=True)
        raise SystemExit(NOT_DONE)
    if as_json:
        echo_json({"what": what, "held": held})
    else:
        click.echo(f"{what} is resumed: {counted(held, 'task')} to send")


@click.command("pauses")
@as_json_option
@reported("tasks")
def pauses(*, as_json: bool) -> None:
    """What is paused, why, by whom, and how many tasks that holds."""
    with _connected() as stores:
        found = stores.pauses.all()
        counts = stores.held.counts([one.what for one in found])
    shown = [{**one.to_json(), "held": counts[one.what]} for one in found]
    if as_json:
        echo_json(shown)
        return
    now = time.time()
    rows = [
        (one.what, str(counts[one.what]), age(now - one.at / 1_000), one.to_json()["until"] or "-", one.by, one.reason)
        for one in found
    ]
    click.echo(
        table(_HEADS, rows, right={"HELD", "FOR"}, cut="REASON", width=terminal_width())
        if rows
        else "nothing is paused"
    )


@click.command("keys")
@click.argument("key", required=False)
@as_json_option
@reported("tasks")
def keys(*, key: str | None, as_json: bool) -> None:
    """The concurrency keys in use, or one of them: which tasks hold it, and how many wait; and the rates of task types."""
    with _connected() as stores:
        names = [key] if key is not None else [*stores.keys.names(_MOST_KEYS), *stores.limits]
        views = (
            stores.rates.view(stores.limits[name]) if name in stores.limits else stores.keys.view(name)
            for name in names
        )
        found = [view for view in views if view is not None]
    if as_json:
        echo_json([_shown(view) for view in found])
    elif found:
        rows = [_row(view) for view in found]
        click.echo(table(_KEY_HEADS, rows, right={"LIMIT", "WAITING"}, cut="HOLDERS", width=terminal_width()))
    else:
        click.echo("no key is in use" if key is None else f"{key} is not in use", err=key is not None)
    if key is not None and not found:
        raise SystemExit(NOT_DONE)


def _row(view: KeyView | RateView) -> tuple[str, ...]:
    if isinstance(view, RateView):
        return view.name, str(view.rate), str(view.waiting), f"{view.begun} begun"
    return view.name, str(view.limit), str(view.waiting), " ".join(task_id for task_id, _ in view.holders) or "-"


def _shown(view: KeyView | RateView) -> dict[str, Any]:
    if isinstance(view, RateView):
        return {
            "key": view.name, "limit": view.rate.runs, "holders": [], "waiting": view.waiting, "next": list(view.first),
            "perSeconds": view.rate.seconds, "begun": view.begun,
        }  # fmt: skip
    holders = [{"taskId": task_id, "lapsesAt": timestamp(lapses)} for task_id, lapses in view.holders]
    return {
        "key": view.name,
        "limit": view.limit,
        "holders": holders,
        "waiting": view.waiting,
        "next": list(view.first),
        "perSeconds": None,
        "begun": None,
    }
