"""Flower's configuration: ``celery -A celery_app flower --conf=flowerconfig.py``.

Flower executes this file and reads every name that is one of its options; the command line takes precedence.
"""

from __future__ import annotations

import os
from typing import Any

from flower.utils.broker import RabbitMQ
from flower.views import BaseHandler

import topology
from dispatch.config import settings as configuration
from dispatch.telemetry import logs

_settings = configuration.load()
logs.configure("flower")

address = _settings.flower_host
port = _settings.flower_port or 5555

#: Flower adds ``queues/<vhost>`` and supports one server; its default is port 15672 on the broker's host.
broker_api = _settings.management_url.get_secret_value().split(";")[0].rstrip("/").removesuffix("/api") + "/api/"

#: Flower's actions bypass the record and the fences: a revoked task is acked and dropped, an applied one
#: has no record. Cancel, retry and redrive through the HTTP API or ``celery dlq``.
read_only = True

#: The exception beside the state: the table is wider than most screens.
tasks_columns = "name,uuid,state,exception,retries,received,runtime,worker"
natural_time = True
max_tasks = 20_000

#: Seconds. A worker's node name is new at every start: old ones would accumulate.
purge_offline_workers = 300

if _settings.flower_basic_auth is not None:
    basic_auth = [_settings.flower_basic_auth.get_secret_value()]
elif configuration.is_loopback(_settings.flower_host):
    # Read for each request; the settings reject any other address without a password.
    os.environ["FLOWER_UNAUTHENTICATED_API"] = "true"

_queues = [queue.name for queue in topology.broker_map(_settings).queues]
_consumed_queues = BaseHandler.get_active_queue_names
_default_headers = BaseHandler.set_default_headers


_management_tls = {"ssl_options": _settings.broker_tls.context()}


def _our_tls(_: RabbitMQ) -> dict[str, Any]:
    """Of an ``https`` management API: Flower knows no client certificate."""
    return _management_tls


def _every_queue(handler: BaseHandler) -> list[str]:
    """All queues: Flower lists only those that a live worker consumes, without rungs and DLQ."""
    return [*_queues, *sorted(set(_consumed_queues(handler)).difference(_queues))]


def _same_origin(handler: Any) -> None:
    """Flower allows any origin, so any web page in the operator's browser could read its API: remove the header."""
    _default_headers(handler)
    handler.clear_header("Access-Control-Allow-Origin")


RabbitMQ._tls_kwargs = _our_tls  # noqa: SLF001 - the one place where Flower makes these options
BaseHandler.get_active_queue_names = _every_queue
BaseHandler.set_default_headers = _same_origin
