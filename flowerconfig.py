"""Flower's configuration: ``celery -A celery_app flower --conf=flowerconfig.py``.

Flower executes this file and reads every name that is one of its options; the command line takes precedence.
"""

from __future__ import annotations

import os
from typing import Any

import celery
from flower.utils.broker import RabbitMQ
from flower.views import BaseHandler

import topology
from dispatch.config import settings as configuration
from dispatch.protocol.names import delay_queue
from dispatch.telemetry import logger, logs

with configuration.problems_exit():
    _settings = configuration.load()
logs.configure("flower")
for _ignored in getattr(celery.current_app, "dispatch_ignored", ()):
    logger(__name__).warning("variable ignored", reason=_ignored)
for _note in getattr(celery.current_app, "dispatch_notes", ()):
    logger(__name__).warning("settings of a stack", reason=_note)

address = _settings.flower_host
port = _settings.flower_port or 5555

#: Flower adds ``queues/<vhost>`` and supports one server; its default is port 15672 on the broker's host.
broker_api = _settings.management_url.get_secret_value().split(";")[0].rstrip("/").removesuffix("/api") + "/api/"

#: Flower's actions bypass the record and the fences: a revoked task is acked and dropped, an applied one
#: has no record. Cancel, retry and redrive through the HTTP API or ``celery dlq``.
read_only = True

#: The exception at the end, where it gets what the other columns leave: see `_STYLE`.
tasks_columns = "name,uuid,state,received,runtime,retries,worker,exception"
natural_time = True
max_tasks = 20_000

#: Milliseconds between two copies of what Flower has seen (20,000 tasks: 4 MB, 1 s) into the file of ``--db``, where ``--persistent`` is given: what a
#: kill -9 costs. At the end it writes one, too. A file that a kill has torn is moved aside (``….corrupt``) at the start.
state_save_interval = 120_000

#: Seconds. A worker's node name is new at every start: old ones would accumulate.
purge_offline_workers = 300

if _settings.flower_basic_auth is not None:
    basic_auth = [_settings.flower_basic_auth.get_secret_value()]
elif configuration.is_loopback(_settings.flower_host):
    # Read for each request; the settings reject any other address without a password.
    os.environ["FLOWER_UNAUTHENTICATED_API"] = "true"

_LEVELS = delay_queue("")
_queues = [queue.name for queue in topology.broker_map(_settings).queues]
_consumed_queues = BaseHandler.get_active_queue_names
_default_headers = BaseHandler.set_default_headers
_render_string = BaseHandler.render_string
_fetch_queues = RabbitMQ.queues

#: Flower's task table is as wide as its content, and scrolls within a page that is 120 rem wide at most: an exception of some
#: length pushed every column behind it out of sight on any screen. The pointer on an exception shows all of it.
_STYLE = b"""<style>
.app-content { width: 100%; }
.tasks-table td { font-size: 0.8125rem; }
.tasks-table .worker-name-link { max-width: 14rem; }
.tasks-table th:last-child { min-width: 14rem; }
.tasks-table td:last-child {
  width: 100%; max-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
@media (max-width: 90rem) {
  .tasks-table .worker-name-link { max-width: 10rem; }
  .tasks-table th:last-child { min-width: 9rem; }
}
.tasks-table td:last-child:hover { white-space: normal; overflow-wrap: anywhere; }
</style></head>"""


_management_tls = {"ssl_options": _settings.broker_tls.context()}


def _our_tls(_: RabbitMQ) -> dict[str, Any]:
    """Of an ``https`` management API: Flower knows no client certificate."""
    return _management_tls


def _every_queue(handler: BaseHandler) -> list[str]:
    """All queues: Flower lists only those that a live worker consumes, without rungs and DLQ."""
    return [*_queues, *sorted(set(_consumed_queues(handler)).difference(_queues))]


async def _in_map_order(broker: RabbitMQ, names: list[str]) -> list[dict[str, Any]]:
    """By the broker map: the management API sorts by name, 1m, 30m, 5m. Without the delay levels in which nothing waits."""
    found = await _fetch_queues(broker, names)
    shown = [queue for queue in found if queue.get("messages") or not queue["name"].startswith(_LEVELS)]
    return sorted(shown, key=lambda queue: names.index(queue["name"]))


def _styled(handler: Any, template: str, **values: Any) -> bytes:
    """A page with our style, and a part of one as it is."""
    html: bytes = _render_string(handler, template, **values)
    return html.replace(b"</head>", _STYLE, 1)


def _same_origin(handler: Any) -> None:
    """Flower allows any origin, so any web page in the operator's browser could read its API: remove the header."""
    _default_headers(handler)
    handler.clear_header("Access-Control-Allow-Origin")


RabbitMQ._tls_kwargs = _our_tls  # noqa: SLF001 - the one place where Flower makes these options
RabbitMQ.queues = _in_map_order
BaseHandler.get_active_queue_names = _every_queue
BaseHandler.render_string = _styled
BaseHandler.set_default_headers = _same_origin
