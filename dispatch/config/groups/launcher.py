"""The launcher (``make up``) and what it starts beside gateway and worker."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dispatch.config.groups.base import Group, OptionalSecret, PortNumber


class LauncherSettings(Group):
    """The launcher (``make up``) and what it starts beside gateway and worker."""

    run_dir: str = Field(".run", description="Directory of the launcher's data, logs and `env` file.")
    rabbitmq_port: PortNumber = Field(0, description="AMQP port of the private RabbitMQ; 0 chooses a free one.")
    rabbitmq_management_port: PortNumber = Field(
        0, description="Management port of the private RabbitMQ; 0 chooses a free one."
    )
    redis_port: PortNumber = Field(0, description="Port of the private Redis; 0 chooses a free one.")
    flower_port: PortNumber = Field(0, description="Port of Flower; 0 chooses a free one.")
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower binds. A non-loopback one needs `flower_basic_auth`."
    )
    flower_basic_auth: OptionalSecret = Field(None, description="`user:password` for Flower.")
    worker_pool: Literal["prefork", "threads"] = Field(
        "prefork",
        description="Pool of the worker that `make up` starts: `prefork` or `threads`. `celery … worker` has `--pool` for that.",
    )
    simulator_port: PortNumber = Field(0, description="Port of the robot simulator; 0 chooses a free one.")
