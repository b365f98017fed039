"""Flower's configuration: ``celery -A celery_app flower --conf=flowerconfig.py``.

Flower executes this file and takes every name that is one of its options; the command line wins over it.
"""

from __future__ import annotations

import os
from typing import Any

from flower.views import BaseHandler

import topology
from dispatch.config import settings as configuration
from dispatch.telemetry import logs

_settings = configuration.load()
logs.configure("flower")

address = _settings.flower_host
port = _settings.flower_port or 5555

#: Flower adds ``queues/<vhost>``, and knows one server; without this it guesses port 15672 on the broker's host.
broker_api = _settings.management_url.get_secret_value().split(";")[0].rstrip("/").removesuffix("/api") + "/api/"

#: Its buttons go around the record and the fences: a revoked task is acked and dropped, an applied one
#: has no record. Cancel, retry and redrive by the HTTP API or ``celery dlq``.
read_only = True

#: Why it failed beside its state: the table is wider than most screens.
tasks_columns = "name,uuid,state,exception,retries,received,runtime,worker"
natural_time = True
max_tasks = 20_000

#: Seconds. A worker's node name is new at every start: the old ones would pile up.
purge_offline_workers = 300

if _settings.flower_basic_auth is not None:
    basic_auth = [_settings.flower_basic_auth.get_secret_value()]
elif configuration.is_loopback(_settings.flower_host):
    # Read for each request; settings refuse any other address without a password.
    os.environ["FLOWER_UNAUTHENTICATED_API"] = "true"

_queues = [queue.name for queue in topology.broker_map(_settings).queues]
_consumed = BaseHandler.get_active_queue_names
_headers = BaseHandler.set_default_headers


def _every_queue(handler: BaseHandler) -> list[str]:
    """Flower shows only what a live worker consumes: rungs and dead letters would be invisible."""
    return [*_queues, *sorted(set(_consumed(handler)).difference(_queues))]


def _same_origin(handler: Any) -> None:
    """An open API answers every web page that the operator's browser shows; nobody else needs to read it."""
    _headers(handler)
    handler.clear_header("Access-Control-Allow-Origin")


BaseHandler.get_active_queue_names = _every_queue
BaseHandler.set_default_headers = _same_origin
