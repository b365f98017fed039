"""Logs, metrics and traces.

Each process calls `logs.configure` once at its start; all other functions work with or without that.
"""

from __future__ import annotations

from dispatch.telemetry.logs import logger, task_log

__all__ = ["logger", "task_log"]
