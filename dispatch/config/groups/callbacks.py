"""Callbacks: the URLs by which other systems signal a task without an API key."""

from __future__ import annotations

import pydantic
from pydantic import Field, SecretStr

from dispatch.config import urls
from dispatch.config.groups.base import Group
from dispatch.protocol.callbacks import CallbackSecrets, CallbackUrls


class CallbackSettings(Group):
    """Callback URLs: workers sign them, the gateway verifies them."""

    callback_secrets: SecretStr = Field(
        SecretStr(""),
        description="Secrets that the tokens of callback URLs are made with, comma-separated, each of 32 characters at least. The first "
        "makes, all verify. Empty: there are no callbacks. `make up` makes one where neither this nor `public_url` is set.",
        repr=False,
    )
    public_url: str = Field(
        "",
        description="Base URL at which other systems reach the gateway, for callback URLs: `https://dispatch.example`, or with a path. "
        "Empty: handlers get no callback URLs.",
    )

    callback_limit: int = Field(
        60,
        ge=0,
        le=100_000,
        description="Callbacks for one task, and wrong ones from one address, that a gateway process takes a minute (429 above); 0 is no limit.",
    )

    @pydantic.field_validator("callback_secrets")
    @classmethod
    def _callback_secrets(cls, value: SecretStr) -> SecretStr:
        CallbackSecrets.parse(value.get_secret_value())
        return value

    @pydantic.field_validator("public_url")
    @classmethod
    def _public(cls, value: str) -> str:
        if value:
            parts = urls.split(value, {"http", "https"})
            if not parts.hostname or parts.query or parts.fragment or parts.username or parts.password:
                raise ValueError("must be a base URL: scheme, host, port and path alone")
        return value.rstrip("/")

    @property
    def callbacks(self) -> CallbackSecrets:
        """What tokens are made and verified with."""
        return CallbackSecrets.parse(self.callback_secrets.get_secret_value())

    @property
    def callback_urls(self) -> CallbackUrls:
        """What makes URLs."""
        return CallbackUrls(self.callbacks, self.public_url)
