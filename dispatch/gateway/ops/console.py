"""The console, put together: its pages, its acts, its stream of changes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import flask
from flask import Response
from werkzeug.wrappers import Response as AnyResponse

from dispatch.config import api_keys
from dispatch.gateway.http.auth import Keyring
from dispatch.gateway.http.long_poll import WaitingRoom
from dispatch.gateway.http.problems import Problem
from dispatch.gateway.ops import acts, assets, filters, frame, live, navigation, operating, pages
from dispatch.gateway.ops.door import ROOT, Door
from dispatch.gateway.ops.frame import Frame
from dispatch.gateway.ops.health import HealthTopic
from dispatch.gateway.ops.keys import KeysPages
from dispatch.gateway.ops.overview import OverviewPage
from dispatch.gateway.ops.pulse import Pulse, Reading, Sources
from dispatch.gateway.ops.queues import QueuesPage
from dispatch.gateway.ops.session import Sessions
from dispatch.gateway.ops.sign_in import SignInPages
from dispatch.gateway.ops.task import CancelTask, DiscardTask, RedriveTask, RetryNow, TaskPage
from dispatch.gateway.ops.tasks import DropView, SaveView, TasksPage
from dispatch.gateway.ops.workers import WorkersPage
from dispatch.gateway.parts import Parts
from dispatch.protocol import figures
from dispatch.store.history import MINUTE, History

#: Minutes whose attempts show whether something fails now.
RECENT = 5


def install(
    app: flask.Flask, parts: Parts, keyring: Keyring, room: WaitingRoom, translate: Callable[[Exception], Problem]
) -> None:
    """Add the console to the application.

    Args:
        app: the application.
        parts: what it is made of.
        keyring: the API keys.
        room: places of event streams.
        translate: the problem that an error is to the client.
    """
    settings, pepper = parts.settings, parts.settings.api_key_pepper
    sessions = Sessions(
        pepper.get_secret_value() if pepper else "", idle=settings.console_idle, longest=settings.console_session
    )
    door = Door(keyring, sessions, parts.ended_sessions, parts.meter)
    outside = Frame(translate, assets.version())
    pulse = Pulse(_sources(parts), outside)
    app.extensions["pulse"] = pulse
    filters.install(app.jinja_env)
    blueprint = flask.Blueprint("ops", __name__, template_folder="templates", url_prefix=ROOT)
    blueprint.after_request(_complete)
    blueprint.register_error_handler(Exception, outside.error)
    assets.add(blueprint)
    SignInPages(outside, door).add(blueprint)
    guarded = pages.Guarded(blueprint, door, parts.meter)
    overview = OverviewPage(outside, pulse, parts.guard, parts.history)
    topics = live.Topics(_topics(app.jinja_env, overview))
    for group in (
        overview,
        TasksPage(outside, parts.tasks, [name for name, kind in parts.types.items() if not kind.internal], parts.views),
        TaskPage(outside, parts, door, room),
        QueuesPage(outside, pulse),
        KeysPages(outside, parts),
        WorkersPage(outside, pulse),
        live.LivePages(pulse, topics, door, room),
    ):
        for rule, view in pages.rules(group):
            guarded.add(rule, view)
    for act in (
        CancelTask(parts),
        RetryNow(parts),
        RedriveTask(parts),
        DiscardTask(parts),
        SaveView(parts.views),
        DropView(parts.views),
    ):
        acts.add(guarded, outside, act)
    operating.add(guarded, outside, parts)
    guarded.add(pages.Rule("missing", "/<path:_rest>"), _missing)
    app.register_blueprint(blueprint)
    lost = [place.name for place in navigation.PLACES if f"ops.{place.name}" not in app.view_functions]
    assert not lost, f"pages without a view: {lost}"  # noqa: S101 - a bug that every start shows


def _sources(parts: Parts) -> Sources:
    return Sources(
        parts.queues,
        parts.workers,
        functools.partial(parts.counts, None),
        parts.ages,
        parts.pauses.all,
        lambda: _recent(parts.history),
        parts.readiness.failures,
    )


def _recent(history: History) -> Mapping[str, int]:
    last = int(time.time() // MINUTE)
    return figures.summed(history.read(last - RECENT + 1, last))


def _topics(environment: Any, overview: OverviewPage) -> list[live.Topic]:
    def shown(reading: Reading, scopes: frozenset[str]) -> Mapping[str, Any]:
        return overview.shown(reading, scopes)

    return [
        live.Topic("health", None, live.templated(environment, "health.html", HealthTopic.shown)),
        live.Topic("overview", None, live.templated(environment, "overview_live.html", shown)),
        live.Topic("tasks", None, HealthTopic.version),
        live.Topic("queues", api_keys.QUEUES_READ, live.templated(environment, "queues_live.html", QueuesPage.shown)),
        live.Topic(
            "workers", api_keys.QUEUES_READ, live.templated(environment, "workers_live.html", WorkersPage.shown)
        ),
    ]


def _missing(_rest: str) -> Response:
    raise Problem("not-found", "The console has no such page.")


def _complete(response: AnyResponse) -> AnyResponse:
    """Runs after every request to the console."""
    for name, value in frame.HEADERS.items():
        response.headers.setdefault(name, value)
    return response
