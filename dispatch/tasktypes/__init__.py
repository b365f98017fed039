"""Task types: registration by the modules in ``tasks/``, and the interface for handlers."""

from __future__ import annotations

from dispatch.tasktypes.context import Context, Log
from dispatch.tasktypes.payload import Payload, Secret
from dispatch.tasktypes.registry import Registry, TaskType, load, task, undoing
from dispatch.tasktypes.waiting import Signal, Wait

__all__ = ["Context", "Log", "Payload", "Registry", "Secret", "Signal", "TaskType", "Wait", "load", "task", "undoing"]
