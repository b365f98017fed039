"""RabbitMQ and Redis: where they are, with which users, over which TLS, and what is encrypted in them."""

from __future__ import annotations

import pydantic
from pydantic import Field, SecretStr

from dispatch.config import redis_url, tls, urls
from dispatch.config.groups.base import Group, OptionalSecret, check_pair
from dispatch.protocol.sealing import Sealing
from dispatch.protocol.signatures import MessageKeys


class BrokerSettings(Group):
    """RabbitMQ: a URL for each role, and the management API."""

    broker_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/robot"),
        description="RabbitMQ; several URLs separated by `;` are tried in turn.",
    )
    gateway_broker_url: OptionalSecret = Field(
        None, description="The gateway's own user (write to the task exchange only). Default: `broker_url`."
    )
    worker_broker_url: OptionalSecret = Field(None, description="The workers' own user. Default: `broker_url`.")
    monitor_broker_url: OptionalSecret = Field(
        None,
        description="The user that reads the management API, for `topology definitions --users`; `management_url` has it, too. "
        "Default: `broker_url`.",
    )
    control_broker_url: OptionalSecret = Field(
        None,
        description="The user of Flower, `celery inspect` and `celery control`, which reach every worker. "
        "Default: `monitor_broker_url`, which had these rights before.",
    )
    replay_broker_url: OptionalSecret = Field(
        None, description="The user that reads the DLQ and redrives dead letters. Default: `broker_url`."
    )
    admin_broker_url: OptionalSecret = Field(
        None, description="The user that applies the topology. Default: `broker_url`."
    )
    message_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that messages are signed with, `<id>:<secret>`, comma-separated; a secret has 32 characters at least. "
        "The first signs, all verify; what bears no signature of theirs ends in the DLQ as `unauthentic`. Empty: nothing is "
        "signed, and every client that may publish to the task exchange may submit anything.",
        repr=False,
    )
    accept_unsigned: bool = Field(
        False,
        description="Whether messages without a signature are taken in spite of `message_keys`: while they are being introduced.",
    )
    management_url: SecretStr = Field(
        SecretStr("http://guest:guest@127.0.0.1:15672"),
        description="RabbitMQ's management API; several URLs separated by `;` are tried in turn.",
    )
    broker_tls_ca: str = Field(
        "",
        description="PEM file of the authorities that `amqps` URLs and an `https` management API are verified against. "
        "Default: the system's.",
    )
    broker_tls_cert: str = Field(
        "", description="PEM file of the client certificate for RabbitMQ, where it asks for one."
    )
    broker_tls_key: str = Field(
        "", description="PEM file of its key, not encrypted. Default: the key is in the file of the certificate."
    )
    broker_tls_server_name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:_-]{0,253}$",
        description="Name that RabbitMQ's certificate must have on its AMQP port. Default: the host of the URL, each host its own.",
    )

    @pydantic.field_validator(
        "broker_url",
        "gateway_broker_url",
        "worker_broker_url",
        "monitor_broker_url",
        "control_broker_url",
        "replay_broker_url",
        "admin_broker_url",
    )
    @classmethod
    def _amqp(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            urls.check_each(value.get_secret_value(), {"amqp", "amqps"})
        return value

    @pydantic.field_validator("message_keys")
    @classmethod
    def _message_keys(cls, value: SecretStr) -> SecretStr:
        MessageKeys.parse(value.get_secret_value())
        return value

    @pydantic.field_validator("management_url")
    @classmethod
    def _http(cls, value: SecretStr) -> SecretStr:
        urls.check_each(value.get_secret_value(), {"http", "https"})
        return value

    @pydantic.field_validator("broker_tls_ca")
    @classmethod
    def _broker_ca(cls, value: str) -> str:
        tls.check_authorities(value)
        return value

    @pydantic.field_validator("broker_tls_cert")
    @classmethod
    def _broker_cert(cls, value: str) -> str:
        tls.check_readable(value)
        return value

    @pydantic.field_validator("broker_tls_key")
    @classmethod
    def _broker_key(cls, value: str, info: pydantic.ValidationInfo) -> str:
        check_pair(info, "broker_tls", value)
        return value

    @property
    def broker_tls(self) -> tls.Tls:
        """TLS of connections to RabbitMQ."""
        return tls.Tls(self.broker_tls_ca, self.broker_tls_cert, self.broker_tls_key, self.broker_tls_server_name)

    @property
    def signing(self) -> MessageKeys:
        """What messages are signed and verified with."""
        return MessageKeys.parse(self.message_keys.get_secret_value(), accept_unsigned=self.accept_unsigned)

    def address(self, role: str) -> tls.BrokerAddress:
        """What a role connects to; arguments as those of `broker`."""
        return tls.BrokerAddress(self.broker(role), self.broker_tls)

    def broker(self, role: str) -> str:
        """The broker URL of a role.

        Args:
            role: ``gateway``, ``worker``, ``monitor``, ``control``, ``replay`` or ``admin``.

        Returns:
            The role's own URL, or `broker_url`; for ``control`` that of ``monitor`` before, from which it was split.
        """
        own: SecretStr | None = getattr(self, f"{role}_broker_url")
        own = self.monitor_broker_url if own is None and role == "control" else own
        return (own or self.broker_url).get_secret_value()


class SealingSettings(Group):
    """Encryption at rest, in RabbitMQ and Redis."""

    encryption_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that payloads, results, progress messages and errors are encrypted with in messages and records, "
        "comma-separated, each 32 bytes in URL-safe base64 (Fernet). The first encrypts, all decrypt; `plain` in the first "
        "place encrypts nothing. What was encrypted with a key that is lost is lost. Empty: nothing is encrypted.",
        repr=False,
    )

    @pydantic.field_validator("encryption_keys")
    @classmethod
    def _encryption_keys(cls, value: SecretStr) -> SecretStr:
        Sealing.parse(value.get_secret_value())
        return value

    @property
    def sealing(self) -> Sealing:
        """What payloads and results are encrypted with at rest."""
        return Sealing.parse(self.encryption_keys.get_secret_value())


class RedisSettings(SealingSettings):
    """Redis: where it is, and the prefix of every Redis key."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis; needs `maxmemory-policy noeviction`. `redis+sentinel://host:port,host:port/service` is the "
        "master that Sentinels look after, `redis+cluster://host:port,host:port` a Redis Cluster; with `rediss`, over TLS.",
    )
    redis_tls_ca: str = Field(
        "",
        description="PEM file of authorities that `rediss` URLs are verified against, beside the system's. "
        "`ssl_ca_certs` in the URL takes precedence, as do `ssl_certfile` and `ssl_keyfile`.",
    )
    redis_tls_cert: str = Field("", description="PEM file of the client certificate for Redis, where it asks for one.")
    redis_tls_key: str = Field(
        "", description="PEM file of its key, not encrypted. Default: the key is in the file of the certificate."
    )
    redis_prefix: str = Field("robot:", pattern=r"^[A-Za-z0-9:_.-]{1,64}$", description="Prefix of every Redis key.")

    @pydantic.field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        redis_url.parse(value.get_secret_value())
        return value

    @pydantic.field_validator("redis_tls_ca")
    @classmethod
    def _redis_ca(cls, value: str) -> str:
        tls.check_authorities(value)
        return value

    @pydantic.field_validator("redis_tls_cert")
    @classmethod
    def _redis_cert(cls, value: str) -> str:
        tls.check_readable(value)
        return value

    @pydantic.field_validator("redis_tls_key")
    @classmethod
    def _redis_key(cls, value: str, info: pydantic.ValidationInfo) -> str:
        check_pair(info, "redis_tls", value)
        return value

    @property
    def redis_tls(self) -> tls.Tls:
        """TLS of connections to Redis."""
        return tls.Tls(self.redis_tls_ca, self.redis_tls_cert, self.redis_tls_key)
