"""What a process tells about itself.

`logs.configure` is called once by the process that is started; code that tells something calls the same functions
whether anybody listens or not.
"""

from __future__ import annotations

from dispatch.telemetry.logs import logger, task_log

__all__ = ["logger", "task_log"]
