"""A worker of a later version, whose `robot.clean` keeps another state: ``celery -A support.newer_robots worker``."""

import dataclasses

import pydantic

import celery_app
import tasks.robots
from dispatch.tasktypes.registry import registry


class ZonedState(pydantic.BaseModel):
    """What this version keeps: it has renamed the command, and can't go on without a zone."""

    model_config = pydantic.ConfigDict(extra="forbid")

    command_name: str
    zone: str


registry.add(dataclasses.replace(registry[tasks.robots.NAME], state=ZonedState))


def __getattr__(name):
    """``support.newer_robots.app``: the worker's app, with that type."""
    return getattr(celery_app, name)
