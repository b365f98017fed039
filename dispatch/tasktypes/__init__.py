"""Task types: how a file in ``tasks/`` registers one, and what a handler is given."""

from __future__ import annotations

from dispatch.tasktypes.context import Context, Log
from dispatch.tasktypes.payload import Payload, Secret
from dispatch.tasktypes.registry import Registry, TaskType, load, task

__all__ = ["Context", "Log", "Payload", "Registry", "Secret", "TaskType", "load", "task"]
