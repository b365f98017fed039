"""Logs: one structlog configuration for every process."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from dispatch.records import Message, trace_id


def configure_logging() -> None:
    """Send structlog's lines through the standard library's logging, where Celery and gunicorn write too."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"], sort_keys=False, drop_missing=True),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def logger(name: str) -> Any:
    """A logger.

    Args:
        name: where the line comes from, ``dispatch.<module>``.
    """
    return structlog.stdlib.get_logger(name)


def task_log(message: Message) -> Any:
    """A logger bound to a delivery: task id, type, attempt, trace."""
    return logger("dispatch.task").bind(
        task_id=message.task_id,
        type=message.type,
        attempt=message.attempt,
        trace_id=trace_id(message.text("traceparent")),
        request_id=message.text("x-request-id"),
    )


#: For code that logs before anything is configured.
logging.getLogger("dispatch").addHandler(logging.NullHandler())
