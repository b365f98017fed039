"""The settings by owner: each group is what one part of the system needs, and may be handed to it alone.

Every field is an environment variable, ``DISPATCH_<NAME>``, whatever its group.
"""

from dispatch.config.groups.base import Group
from dispatch.config.groups.callbacks import CallbackSettings
from dispatch.config.groups.gateway import AuditSettings, GatewaySettings
from dispatch.config.groups.launcher import LauncherSettings
from dispatch.config.groups.queues import QueueSettings, RecordSettings
from dispatch.config.groups.servers import BrokerSettings, RedisSettings, SealingSettings
from dispatch.config.groups.worker import HandlerSettings, WorkerSettings

__all__ = [
    "AuditSettings",
    "BrokerSettings",
    "CallbackSettings",
    "GatewaySettings",
    "Group",
    "HandlerSettings",
    "LauncherSettings",
    "QueueSettings",
    "RecordSettings",
    "RedisSettings",
    "SealingSettings",
    "WorkerSettings",
]
